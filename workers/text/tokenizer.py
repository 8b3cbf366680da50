"""Tokens, text and chat templates of a model folder, straight from its tokenizer files.

The template is the model's own, run in a sandbox: a template is code that came with the weights.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RustTokenizer

from workers.json_values import Fields, Json, JsonRefused, read_object
from workers.text.special_tokens import Literals
from workers.text.tools import style_of

# Vocabularies hold text, so bytes that are none have names in them: in byte-level vocabularies a
# letter each (those that print name themselves, the others follow U+0100), elsewhere <0x..>.
PRINTING = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTE_OF = {chr(byte): byte for byte in PRINTING} | {
    chr(256 + index): byte
    for index, byte in enumerate(byte for byte in range(256) if byte not in PRINTING)
}
BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
PLAIN_TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


class BadTokenizer(RuntimeError):
    """The folder has no tokenizer that can be read, or another model's."""


class TemplateRefused(ValueError):
    """The model's chat template cannot express these messages."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What stands beside a tokenizer: how chats are written, and the texts of special tokens."""

    template: str
    special: dict[str, str]


class Tokenizer:
    def __init__(self, model_dir: Path) -> None:
        self._tokenizer = _read_tokenizer(model_dir / "tokenizer.json")
        settings = _read_settings(model_dir / "tokenizer_config.json")
        source = _template_source(model_dir) or settings.template
        self.tool_style = style_of(source)
        self._literals = Literals(self._tokenizer)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = _to_json
        self._template = environment.from_string(source)
        self._special = settings.special

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def to_json(self) -> str:
        """The tokenizer file's content, for libraries that read it themselves."""
        return self._tokenizer.to_str()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; with `special`, also those that the tokenizer puts around a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, tokens: Sequence[int], *, keeps_special: bool = False) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=not keeps_special)

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for; part of a character too."""
        text = self._tokenizer.decode([token], skip_special_tokens=False)
        if "\ufffd" not in text:
            return text.encode()
        piece = self._tokenizer.id_to_token(token) or ""
        if BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        if all(char in BYTE_OF for char in piece):
            return bytes(BYTE_OF[char] for char in piece)
        return piece.encode()

    def token_text(self, token: int) -> str:
        """A token's text; of part of a character its bytes by number, as OpenAI writes them."""
        raw = self.token_bytes(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The vocabulary's own names of tokens; of one without a name, an empty text."""
        return [self._tokenizer.id_to_token(token) or "" for token in tokens]

    def encode_chat(
        self,
        messages: list[dict[str, Json]],
        *,
        tools: list[dict[str, Json]] | None = None,
        continue_final: bool = False,
        opens_answer: bool = True,
        opening: str = "",
    ) -> list[int]:
        """Tokens of the rendered conversation, ready for the assistant's next (or same) turn.

        `opening` is how that turn begins, whatever the model would have written. Control tokens in
        what the caller wrote are text.
        """
        mark = self._literals.mark_for([*messages, *(tools or [])])
        if mark:
            messages = [self._literals.marked_object(one, mark) for one in messages]
            tools = tools and [self._literals.marked_object(one, mark) for one in tools]
        try:
            text = self._template.render(
                messages=messages,
                tools=tools,
                add_generation_prompt=opens_answer and not continue_final,
                **self._special,
            )
        except TemplateError as error:
            raise TemplateRefused(str(error)) from error
        if continue_final:
            text = _without_closing(text, str(messages[-1]["content"]).rstrip())
        if mark:
            return self._literals.encode(text + opening, mark)
        return self.encode(text + opening)


def _without_closing(text: str, content: str) -> str:
    """Cut what the template puts after the last message: it would end the turn."""
    start = text.rfind(content)
    if not content or start < 0:
        raise TemplateRefused("the last message has no text that could be continued")
    return text[: start + len(content)]


def _read_tokenizer(path: Path) -> RustTokenizer:
    if not path.is_file():
        raise BadTokenizer(f"{path} is missing: save the fast tokenizer beside the weights")
    try:
        return RustTokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise BadTokenizer(f"{path} cannot be read: {error}") from error


def _read_settings(path: Path) -> Settings:
    try:
        fields = Fields(read_object(path) if path.is_file() else {}, source=str(path))
        return Settings(
            template=fields.text("chat_template", "") or PLAIN_TEMPLATE,
            special={name: _token_text(fields, name) for name in SPECIAL if fields.has(name)},
        )
    except JsonRefused as error:
        raise BadTokenizer(str(error)) from error


def _token_text(fields: Fields, name: str) -> str:
    """Older files spell a special token out with its flags."""
    if isinstance(fields.raw[name], str):
        return fields.text(name)
    return Fields(fields.within(name), source=f"{fields.source}: {name}").text("content")


def _template_source(model_dir: Path) -> str:
    """The template that stands in a file of its own, empty without one."""
    path = model_dir / "chat_template.jinja"
    return path.read_text() if path.is_file() else ""


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    """As transformers renders it for templates: without the escapes that HTML would need."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(pattern: str) -> str:
    return datetime.now(tz=UTC).strftime(pattern)
