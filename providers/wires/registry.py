"""The wires by name, and what a request cannot be said in: by what each wire declares of itself.

What changes the answer is a reason against the offer, so that the next one is tried; what only
tunes it is left out, and the caller is told. A dialect that a wire speaks itself passes as bytes.
"""

import re
from collections.abc import Set

from providers.chat import ChatRequest, OfferView, Wire, WireName
from providers.errors import CannotSay
from providers.wires import body_fields
from providers.wires.anthropic.wire import AnthropicWire
from providers.wires.openai.wire import OpenAIWire

_WIRES: dict[WireName, Wire] = {wire.name: wire for wire in (OpenAIWire(), AnthropicWire())}
_NOTHING: frozenset[str] = frozenset()
# The caller chose the names, and is told them in a header.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def wire_for(name: WireName) -> Wire:
    return _WIRES[name]


def lacks(request: ChatRequest, offer: OfferView) -> frozenset[str]:
    """What the request needs and this offer's wire cannot express."""
    wire = _WIRES[offer.wire]
    return _NOTHING if wire.dialect == request.dialect else request.needs & wire.lacks(offer)


def left_out(request: ChatRequest, offer: OfferView) -> list[str]:
    """What of a request does not reach this offer, by the caller's names: not sent to sellers of
    its kind, or without words in its wire, where it only tunes an answer."""
    wire = _WIRES[offer.wire]
    seller = body_fields.seller_of(offer)
    kept = request.left_out
    if kept is None:
        kept = request.left_out = {}
    # A kind of seller has one wire.
    if seller not in kept:
        kept[seller] = _left_out(request, wire, seller)
    return kept[seller]


def _left_out(request: ChatRequest, wire: Wire, seller: body_fields.Seller) -> list[str]:
    if wire.dialect == request.dialect:
        unsent = body_fields.dropped(request.fields, seller)
        return sorted(map(_shown, unsent)) if unsent else unsent
    try:
        said = request.conversation
    except CannotSay:
        return []  # then nothing is sent at all
    names = said.unread | {said.names[nuance] for nuance in wire.unsaid(said)}
    # Of what is left out whole, its parts need no words.
    return sorted({_shown(name) for name in names if not _is_within(name, names)})


def _is_within(name: str, others: Set[str]) -> bool:
    parent, dot, _ = name.rpartition(".")
    return bool(dot) and parent in others


def _shown(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else "?"
