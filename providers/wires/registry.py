"""Dialect -> wire, and what cannot be said when a request crosses from one dialect to another."""

from providers.chat import Dialect, Wire
from providers.wires.anthropic import AnthropicWire
from providers.wires.openai import OpenAIWire

_WIRES: dict[Dialect, Wire] = {"openai": OpenAIWire(), "anthropic": AnthropicWire()}

# Needs of a request (ChatRequest.needs) that the other dialect has no words for. What only
# tunes the sampling (penalties, seed, top_k) is left out instead, as the API docs say.
_LACKS: dict[tuple[Dialect, Dialect], frozenset[str]] = {
    ("openai", "anthropic"): frozenset(
        {"n", "logprobs", "audio", "audio_output", "json_object", "files", "functions"}
    ),
    ("anthropic", "openai"): frozenset({"files"}),
}


def wire_for(dialect: Dialect) -> Wire:
    return _WIRES[dialect]


def lacks(spoken: Dialect, wire: Dialect) -> frozenset[str]:
    """What a request in dialect `spoken` may need and a wire cannot express."""
    return _LACKS.get((spoken, wire), frozenset())
