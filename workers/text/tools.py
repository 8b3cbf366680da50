"""Function calls: how models write them, how a call is forced, how text becomes calls again.

A model whose chat template knows tools decides by itself ("auto") and writes calls in the manner it
was trained to, which is recognised from the template. A call that must come ("required", or one by
name) is written under a grammar, so its name exists and its arguments are valid; that works with
every model. Text that only looks like a call stays text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from workers.json_values import Json
from workers.text import formats
from workers.text.detokenizer import overlap
from workers.text.structured import JSON_STYLE, GrammarRefused

Style = Literal["hermes", "llama", "mistral"]

HERMES_START: Final = "<tool_call>"
HERMES_END: Final = "</tool_call>"
MISTRAL_START: Final = "[TOOL_CALLS]"
LLAMA_START: Final = "<|python_tag|>"

# What precedes a forced call, so that the model finds itself where it would have begun one.
OPENINGS: Final[dict[Style, str]] = {
    "hermes": f"{HERMES_START}\n",
    "llama": "",
    "mistral": f"{MISTRAL_START} [",
}
NO_PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a caller offers; `parameters` is the JSON schema of its arguments."""

    name: str
    parameters: dict[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the model wrote it, whole; the arguments are JSON text."""

    name: str
    arguments: str


@dataclass(slots=True)
class Parsed:
    text: str = ""
    calls: list[Call] = field(default_factory=list)


def style_of(template: str) -> Style | None:
    """How a model with this chat template writes calls; None where it knows no tools."""
    if "tools" not in template:
        return None
    if HERMES_START in template:
        return "hermes"
    return "mistral" if MISTRAL_START in template else "llama"


def forced_grammar(functions: Sequence[Function], style: Style | None) -> str:
    """One call of one of the functions, in Lark; each schema keeps its own references."""
    head = '{"name": %s, "' + _key(style) + '": '
    rules = ["start: " + " | ".join(f"call_{index}" for index in range(len(functions)))]
    for index, function in enumerate(functions):
        schema = {**_settled(function.parameters or NO_PARAMETERS), "x-guidance": JSON_STYLE}
        opening = json.dumps(head % json.dumps(function.name))
        rules.append(f'call_{index}: {opening} arguments_{index} "}}"')
        rules.append(f"arguments_{index}: %json {json.dumps(schema)}")
    return "\n".join(rules)


def _settled(parameters: dict[str, Json]) -> dict[str, Json]:
    try:
        return formats.settled_object(parameters)
    except RecursionError:
        raise GrammarRefused("it is nested too deeply") from None


def instructions(tools: list[dict[str, Json]]) -> str:
    """What a model is told whose template has no place for tools."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        "You can call one of these functions:\n"
        f"{listed}\n"
        'Call the one that helps, as JSON: {"name": its name, "arguments": {its arguments}}.'
    )


def _key(style: Style | None) -> str:
    return "parameters" if style == "llama" else "arguments"


class ForcedParser:
    """Reads the one call that a grammar of `forced_grammar` let through.

    One that was cut is no call: its text is shown as the text that it is.
    """

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> Parsed:
        self._text += text
        return Parsed()

    def finish(self) -> Parsed:
        call = _call_in(self._text)
        return Parsed(self._text) if call is None else Parsed(calls=[call])


class FreeParser:
    """Finds calls in text that the model wrote as it liked, while the text arrives."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._held = ""
        self._begun = False

    def feed(self, text: str) -> Parsed:
        """What is certain by now: text before a call, and calls that are complete."""
        self._held += text
        if self._style == "hermes":
            return self._feed_marked()
        if self._begun:
            return Parsed()
        if self._style == "llama":
            self._begun = self._held.lstrip().startswith(("{", LLAMA_START))
            waits = self._begun or LLAMA_START.startswith(self._held.lstrip())
            return Parsed() if waits else Parsed(self._release(len(self._held)))
        start = self._held.find(MISTRAL_START)
        self._begun = start >= 0
        keep = start if start >= 0 else len(self._held) - overlap(self._held, MISTRAL_START)
        return Parsed(self._release(keep))

    def finish(self) -> Parsed:
        """What is left at the end: calls, or text that was none after all."""
        held, self._held = self._held, ""
        body = held.strip().removeprefix(MISTRAL_START).removeprefix(LLAMA_START)
        body = body.removeprefix(HERMES_START).removesuffix(HERMES_END)
        calls = _calls_in(body) if self._begun else None
        return Parsed(calls=calls) if calls else Parsed(held.rstrip("\n") if body == "" else held)

    def _feed_marked(self) -> Parsed:
        parsed = Parsed()
        while True:
            start = self._held.find(HERMES_START)
            if start < 0:
                keep = len(self._held) - overlap(self._held, HERMES_START)
                # Line ends before a call belong to it; whether one comes is not known yet.
                parsed.text += self._release(len(self._held[:keep].rstrip("\n")))
                return parsed
            parsed.text += self._release(start).rstrip("\n")
            self._begun = True
            end = self._held.find(HERMES_END)
            if end < 0:
                return parsed
            whole = self._release(end + len(HERMES_END))
            calls = _calls_in(whole[len(HERMES_START) : -len(HERMES_END)])
            if calls:
                parsed.calls += calls
                self._held = self._held.lstrip("\n")
            else:
                parsed.text += whole
            self._begun = False

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released


def _calls_in(text: str) -> list[Call] | None:
    """The calls of a JSON object, a list of them, or several one after the other; None if not."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].removesuffix("]")
    calls: list[Call] = []
    decoder = json.JSONDecoder()
    while text:
        try:
            _, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            return None
        call = _call_in(text[:end])
        if call is None:
            return None
        calls.append(call)
        text = text[end:].lstrip(" \n\r\t,;")
    return calls


def _call_in(text: str) -> Call | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        return Call(value["name"], arguments)
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))
