"""Which tool call a delta of an OpenAI-like stream belongs to. Pure.

A number and an id at the beginning say so, where servers keep to it. Some give every call the same
number or none: there a new id is a new call, and so is a name after arguments that are complete.
"""

from typing import Final, cast

import msgspec

from providers.chat import CallDelta
from providers.json_values import JsonObject, JsonValue

NOTHING: Final = "{}"


class _Call:
    def __init__(self, identity: str, name: str) -> None:
        self.identity = identity
        self.name = name
        self.arguments: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether its arguments are a whole object, after which nothing more can come."""
        try:
            return isinstance(msgspec.json.decode("".join(self.arguments)), dict)
        except (msgspec.DecodeError, RecursionError):
            return False


class Numbering:
    """The calls of one choice, in the order in which they began."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._stated: dict[int, int] = {}  # the server's number -> ours
        self._by_identity: dict[str, int] = {}
        self._last: int | None = None

    def renumbered(self, deltas: list[CallDelta]) -> list[CallDelta]:
        """The deltas with numbers that tell calls apart; the same list where they do already."""
        numbers = [self._number(delta) for delta in deltas]
        if all(d.get("index") == n for d, n in zip(deltas, numbers, strict=True)):
            return deltas
        return [{**d, "index": n} for d, n in zip(deltas, numbers, strict=True)]

    def unsaid(self) -> list[CallDelta]:
        """The arguments of calls that got none at all: no text is no JSON, and an empty object is
        what was meant."""
        found: list[CallDelta] = []
        for number, call in enumerate(self._calls):
            if not "".join(call.arguments).strip():
                call.arguments.append(NOTHING)
                found.append({"index": number, "function": {"arguments": NOTHING}})
        return found

    def _number(self, delta: CallDelta) -> int:
        function = delta.get("function")
        words = function if isinstance(function, dict) else {}
        identity, name = _text(delta.get("id")), _text(words.get("name"))
        stated = delta.get("index")
        number = self._known(stated if isinstance(stated, int) else None, identity, name)
        if number is None:
            number = len(self._calls)
            self._calls.append(_Call(identity, name))
        call = self._calls[number]
        call.identity, call.name = call.identity or identity, call.name or name
        call.arguments.append(_text(words.get("arguments")))
        if identity:
            self._by_identity[identity] = number
        if isinstance(stated, int):
            self._stated[stated] = number
        self._last = number
        return number

    def _known(self, stated: int | None, identity: str, name: str) -> int | None:
        """The call that goes on with this; None where it begins another."""
        if identity in self._by_identity:
            return self._by_identity[identity]
        number = self._last if stated is None else self._stated.get(stated)
        if number is None or not name:
            return number
        call = self._calls[number]
        is_other = bool(identity and call.identity) or (call.name not in ("", name))
        return None if is_other or (call.name and call.is_complete) else number


def in_order(calls: list[CallDelta]) -> list[CallDelta]:
    """The calls of a whole answer, numbered by their place, each with arguments."""
    return [{**_filled(call), "index": at} for at, call in enumerate(calls)]


def _filled(call: CallDelta) -> CallDelta:
    function = call.get("function")
    if not isinstance(function, dict) or _text(function.get("arguments")).strip():
        return call
    return {**call, "function": {**function, "arguments": NOTHING}}


def put_into(choice: JsonObject, calls: list[CallDelta]) -> None:
    """A choice as it came, with its calls as they are read here."""
    delta, message = choice.get("delta"), choice.get("message")
    if isinstance(delta, dict):
        delta["tool_calls"] = cast(JsonValue, calls)
        return
    came = message.get("tool_calls") if isinstance(message, dict) else None
    if isinstance(came, list):
        for written, call in zip(came, calls, strict=True):
            if isinstance(written, dict):
                written["function"] = cast(JsonValue, call["function"])


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
