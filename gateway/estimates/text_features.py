"""What a text is made of, as far as tokenizers care: letters, words, digits, marks, scripts. Pure.

A tokenizer spends about so many tokens on each of them, whatever the text says. Shapes add up, and
say nothing of the text itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from providers.chat import ChatRequest
from providers.wires import media_rules

# Counts of: lower-case letters, words behind a space, words behind a mark or a line's end,
# capitals, digits, marks, pairs of marks, pairs of spaces, line ends, characters of three bytes
# (Chinese, Japanese, Korean), others that are not ASCII, messages, requests.
Shape = tuple[int, ...]
CLASSES: Final = 13
BYTES_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
REQUEST_TOKENS: Final = 3
# What each costs in a usual vocabulary of today, in tokens.
USUAL: Final = (
    *(0.13, 0.7, 0.3, 0.3, 0.6, 0.7, -0.3, 0.1, 0.6, 1.1, 1.2),
    *(MESSAGE_TOKENS, REQUEST_TOKENS),
)
# What stands for a document where nobody counted it.
ATTACHMENT_TOKENS: Final = 1000

# The letter that stands for each class of bytes; `of_text` counts them and pairs of them.
_LOWER, _UPPER, _DIGIT, _MARK, _SPACE = "a", "u", "d", "m", " "
_END, _CJK, _OTHER, _REST = "n", "c", ".", "x"
_TEXT_KEYS: Final = (
    *("text", "content", "thinking", "refusal", "name", "arguments", "input"),
    *("function", "tool_calls", "function_call"),
)
_ATTACHED: Final = frozenset(
    {"image_url", "image", "input_image", "input_audio", "file", "input_file", "document"}
)
_decode = msgspec.json.Decoder().decode


def _class_of(byte: int) -> str:
    character = chr(byte)
    if byte >= 0x80:
        if byte < 0xC0:
            return _REST  # the second and later bytes of a character
        return _CJK if 0xE3 <= byte <= 0xED else _OTHER
    if character.isalpha():
        return _LOWER if character.islower() else _UPPER
    if character.isdigit():
        return _DIGIT
    if character == " ":
        return _SPACE
    return _END if character in "\n\r\t" else _MARK


_TABLE: Final = "".join(map(_class_of, range(256))).encode()


def of_text(text: bytes, *, messages: int = 0, requests: int = 0) -> Shape:
    """The shape of UTF-8; every pass over the text is one in C."""
    count = text.translate(_TABLE).count
    return (
        count(b"a"),
        count(b" a") + count(b" u"),
        count(b"ma") + count(b"mu") + count(b"na") + count(b"nu"),
        count(b"u"),
        count(b"d"),
        count(b"m"),
        count(b"mm"),
        count(b"  "),
        count(b"n"),
        count(b"c"),
        count(b"."),
        messages,
        requests,
    )


def scaled(shape: Shape, *, size: int, of: int) -> Shape:
    """The shape of a text of `size` bytes that is like one of `of` bytes."""
    if size == of or not of:
        return shape
    return tuple(count * size // of for count in shape)


def of_request(request: ChatRequest) -> tuple[Shape, int]:
    """The shape of a prompt's text, and its bytes."""
    values = [
        _decode(request.fields[name]) for name in ("messages", "system") if name in request.fields
    ]
    parts = [found.encode(errors="replace") for found in _texts(values)]
    parts += [
        bytes(request.fields[name]) for name in ("tools", "functions") if name in request.fields
    ]
    text = b"\n".join(parts)
    return of_text(text, messages=request.messages, requests=1), len(text)


def beside_text(request: ChatRequest) -> int:
    """What the pictures, sounds and documents of a prompt usually come to, in tokens."""
    pictures = sum(media_rules.picture_expected(picture) for picture in request.pictures)
    documents = ATTACHMENT_TOKENS if request.unbounded else 0
    return pictures + request.sound_tokens + documents


def _texts(value: Any) -> Iterator[str]:
    """The texts among a request's values; what is attached is none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict) and value.get("type") not in _ATTACHED:
        for name in _TEXT_KEYS:
            part = value.get(name)
            if name == "input" and isinstance(part, dict):
                yield msgspec.json.encode(part).decode()
            else:
                yield from _texts(part)


def of_texts(texts: Iterable[str]) -> tuple[Shape, int]:
    """The shape of an answer's pieces, and their bytes."""
    data = "".join(texts).encode(errors="replace")
    return of_text(data), len(data)


def tool_texts(calls: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """What a model wrote of tool calls: names and arguments."""
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict):
            for name in ("name", "arguments"):
                value = function.get(name)
                if isinstance(value, str):
                    yield value
