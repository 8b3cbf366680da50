"""Dialect -> wire, and what cannot be said when a request crosses from one dialect to another.

What changes the answer is a reason against the offer, so that the next one is tried; what only
tunes it is left out, and the caller is told.
"""

import re

from providers.chat import ChatRequest, Dialect, OfferView, Wire
from providers.wires import body_fields
from providers.wires.anthropic import to_messages
from providers.wires.anthropic.wire import AnthropicWire
from providers.wires.openai import from_messages
from providers.wires.openai.wire import OpenAIWire

_WIRES: dict[Dialect, Wire] = {"openai": OpenAIWire(), "anthropic": AnthropicWire()}

# Needs of a request (ChatRequest.needs) that the other dialect has no words for.
_LACKS: dict[tuple[Dialect, Dialect], frozenset[str]] = {
    ("openai", "anthropic"): frozenset(
        "n logprobs audio audio_output json_object files functions whitespace_stop "
        "empty_last_message".split()
    ),
    ("anthropic", "openai"): frozenset("files citations prefill client_tools".split()),
}
_SAID: dict[tuple[Dialect, Dialect], frozenset[str]] = {
    ("openai", "anthropic"): to_messages.SAID,
    ("anthropic", "openai"): from_messages.SAID,
}
# What wires decide, or what has no part in an answer.
_NOT_TUNING = body_fields.OURS | frozenset(
    "model max_tokens max_completion_tokens stream stream_options service_tier metadata store n "
    "logprobs safety_identifier output_config".split()
)
# The caller chose the names, and is told them in a header.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Claude refuses both at once from 4.1 on; those before are named.
_ONE_SAMPLING = "temperature_and_top_p"
_OLDER_CLAUDE = re.compile(r"claude-(instant|2|3|(opus|sonnet)-4(-0|-2025\d*)?$)")


def wire_for(dialect: Dialect) -> Wire:
    return _WIRES[dialect]


def lacks(spoken: Dialect, offer: OfferView) -> frozenset[str]:
    """What a request in dialect `spoken` may need and this offer's wire cannot express."""
    missing = _LACKS.get((spoken, offer.wire), frozenset())
    if spoken != "anthropic" and offer.wire == "anthropic" and offer.model.startswith("claude-"):
        if not _OLDER_CLAUDE.match(offer.model):
            missing |= {_ONE_SAMPLING}
    return missing


def left_out(request: ChatRequest, offer: OfferView) -> list[str]:
    """The fields of a request that do not reach this offer: not sent to sellers of its kind, or
    without words in its wire, where they only tune an answer."""
    said = _SAID.get((request.dialect, offer.wire))
    if said is None:
        unsent = body_fields.dropped(request.fields, body_fields.seller_of(offer))
        return sorted(map(_shown, unsent)) if unsent else unsent
    names = [
        _shown(name)
        for name, value in request.fields.items()
        if name not in said and name not in _NOT_TUNING and bytes(value) not in body_fields.NOTHING
    ]
    if offer.wire == "anthropic" and to_messages.is_hotter(request.fields.get("temperature")):
        names.append("temperature")
    if b'"effort"' in bytes(request.fields.get("output_config", b"")):
        names.append("output_config.effort")
    return sorted(names)


def _shown(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else "?"
