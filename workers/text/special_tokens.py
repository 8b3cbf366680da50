"""What a caller wrote stays text: `<|im_end|>` in a message ends no turn.

A chat template puts a caller's words between control tokens, and a tokenizer that reads the result
cannot tell whose `<|im_end|>` is whose. So those in a caller's strings (contents, names, arguments,
tools) are marked before the template sees them, and the stretches that carry a mark are encoded
by a tokenizer that knows no control tokens.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from tokenizers import Tokenizer as RustTokenizer

from workers.json_values import Json

# Some models' turns are opened by tokens that are not flagged as special, but written like one.
_LIKE_CONTROL: Final = re.compile(r"<[|｜][^<>]*[|｜]>")
# One of these, of a plane that nobody writes in, stands in no string of the call.
_MARKS: Final = tuple(map(chr, range(0x10F000, 0x10F400)))


class Literals:
    """Marks control tokens in callers' strings, and encodes texts in which some are marked."""

    def __init__(self, tokenizer: RustTokenizer) -> None:
        self._tokenizer = tokenizer
        described = json.loads(tokenizer.to_str())
        controls: dict[str, int] = {}
        for token in described["added_tokens"]:
            if token["special"] or _LIKE_CONTROL.fullmatch(token["content"]):
                token["special"] = True
                controls[token["content"]] = token["id"]
        self._ids = frozenset(controls.values())
        # The longest first: one may begin with another.
        names = sorted(controls, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        prefixes = {name[:size] for name in names for size in range(1, len(name))}
        self._begins = re.compile(
            f"(?:{'|'.join(map(re.escape, sorted(prefixes, key=len, reverse=True))) or '(?!)'})\\Z"
        )
        self._longest = max(map(len, names), default=0)
        self._plain = RustTokenizer.from_str(json.dumps(described))
        self._plain.encode_special_tokens = True

    def mark_for(self, objects: Sequence[dict[str, Json]]) -> str:
        """The mark to use in these objects; empty where they hold nothing that needs one."""
        strings = [text for one in objects for text in _strings(one)]
        if not any(self._needs_mark(text) for text in strings):
            return ""
        used = set().union(*strings)
        return next(mark for mark in _MARKS if mark not in used)

    def marked_object(self, value: dict[str, Json], mark: str) -> dict[str, Json]:
        """The object with the mark inside each control token, and behind what may become one."""
        return {self._marked_text(k, mark): self._marked(v, mark) for k, v in value.items()}

    def _marked(self, value: Json, mark: str) -> Json:
        if isinstance(value, str):
            return self._marked_text(value, mark)
        if isinstance(value, dict):
            return self.marked_object(value, mark)
        return [self._marked(one, mark) for one in value] if isinstance(value, list) else value

    def _marked_text(self, text: str, mark: str) -> str:
        text = self._control.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", text)
        return f"{text}{mark}" if self._begins_one(text) else text

    def encode(self, text: str, mark: str) -> list[int]:
        """Tokens of a rendered text: control tokens where the template put them, and only there."""
        tokens: list[int] = []
        waiting, start = "", 0
        for end, control in self._controls_of(text):
            stretch = text[start:end]
            if mark in stretch:
                tokens += self._read(waiting) + self._read_plain(stretch.replace(mark, ""))
                waiting = control
            else:
                waiting += stretch + control
            start = end + len(control)
        return tokens + self._read(waiting)

    def _controls_of(self, text: str) -> Iterator[tuple[int, str]]:
        for found in self._control.finditer(text):
            yield found.start(), found[0]
        yield len(text), ""

    def _read(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _read_plain(self, text: str) -> list[int]:
        """Vocabularies that look up whole words may know a control token as one: it is split."""
        tokens = list(self._plain.encode(text, add_special_tokens=False).ids)
        if len(text) < 2 or self._ids.isdisjoint(tokens):
            return tokens
        found = self._control.search(text)
        middle = found.start() + 1 if found else len(text) // 2
        return self._read_plain(text[:middle]) + self._read_plain(text[middle:])

    def _needs_mark(self, text: str) -> bool:
        return self._control.search(text) is not None or self._begins_one(text)

    def _begins_one(self, text: str) -> bool:
        """Whether its end is the beginning of a control token that the next string could finish."""
        return self._begins.search(text[-self._longest :]) is not None


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _strings(key)
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
