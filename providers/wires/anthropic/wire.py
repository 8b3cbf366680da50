"""The Anthropic Messages wire.

Clients of this API: their body, spliced, with the version and beta headers that they sent. Of
others the conversation, with max_tokens always set, as this API demands.
"""

import re
from functools import lru_cache

import msgspec

from providers.chat import (
    ChatRequest,
    Dialect,
    OfferView,
    ResponseReader,
    UpstreamCall,
    WireName,
)
from providers.conversation import Conversation, Nuance
from providers.wires import splice
from providers.wires.anthropic import request as requests
from providers.wires.anthropic.reader import StreamReader, WholeReader

VERSION = "2023-06-01"
# Only the default tier is priced here: the vendor must not move a request to another.
_STANDARD_ONLY = "standard_only"
_encode = msgspec.json.Encoder().encode
# Needs that it has no words for.
_LACKS = frozenset(
    "n logprobs audio audio_output json_object files functions whitespace_stop "
    "empty_last_message".split()
)
# Claude refuses both at once from 4.1 on; those before are named.
_LACKS_OF_CLAUDE = _LACKS | {"temperature_and_top_p"}
_OLDER_CLAUDE = re.compile(r"claude-(instant|2|3|(opus|sonnet)-4(-0|-2025\d*)?$)")


class AnthropicWire:
    name: WireName = "anthropic"
    dialect: Dialect | None = "anthropic"

    def lacks(self, offer: OfferView) -> frozenset[str]:
        is_newer = offer.model.startswith("claude-") and not _OLDER_CLAUDE.match(offer.model)
        return _LACKS_OF_CLAUDE if is_newer else _LACKS

    def unsaid(self, conversation: Conversation) -> set[Nuance]:
        return requests.unsaid(conversation)

    def build(
        self, request: ChatRequest, offer: OfferView, *, max_output_tokens: int
    ) -> UpstreamCall:
        """CannotSay where another dialect's conversation cannot be said here."""
        if request.dialect == self.dialect:
            body = _splice(request, offer, max_output_tokens)
        else:
            said = requests.messages_body(request.conversation)
            said.model, said.max_tokens = offer.upstream_model, max_output_tokens
            said.stream = request.stream
            body = _encode(said)
        headers = {
            "content-type": "application/json",
            "anthropic-version": VERSION,
            **offer.headers,
            **request.passed_headers,
        }
        return UpstreamCall(url=endpoint(offer.base_url), headers=headers, body=body)

    def reader(self, request: ChatRequest, offer: OfferView | None = None) -> ResponseReader:
        model = offer.model if offer is not None else request.model
        return StreamReader(model) if request.stream else WholeReader(model)

    def models_url(self, base_url: str) -> str:
        return endpoint(base_url, "models")


def _splice(request: ChatRequest, offer: OfferView, max_output_tokens: int) -> bytes:
    ours: dict[str, splice.Decided] = {
        "model": offer.upstream_model,
        "max_tokens": max_output_tokens,
    }
    if request.stream:
        ours["stream"] = True
    if "service_tier" in request.fields:
        ours["service_tier"] = _STANDARD_ONLY
    if "unsigned_thinking" in request.needs:
        ours["messages"] = _signed(request)
    return splice.spliced(request, offer, ours)


class _Turn(msgspec.Struct):
    content: str | list[msgspec.Raw]


class _Kind(msgspec.Struct):
    type: str
    signature: str | None = None


_turns = msgspec.json.Decoder(list[msgspec.Raw]).decode
_turn = msgspec.json.Decoder(_Turn).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_kind = msgspec.json.Decoder(_Kind).decode


def _signed(request: ChatRequest) -> list[msgspec.Raw]:
    """The messages without thoughts that nobody signed: they came from a model of another vendor,
    and this one refuses them."""
    messages = []
    for raw in _turns(request.fields["messages"]):
        content = _turn(raw).content
        if isinstance(content, list):
            kept = [block for block in content if _is_signed(_kind(block))]
            if len(kept) < len(content):
                raw = msgspec.Raw(_encode({**_fields(raw), "content": kept}))
            content = kept
        if content:
            messages.append(raw)
    return messages


def _is_signed(block: _Kind) -> bool:
    return block.type != "thinking" or bool(block.signature)


@lru_cache(maxsize=4096)
def endpoint(base_url: str, what: str = "messages") -> str:
    base = base_url.rstrip("/")
    return f"{base}{'' if base.endswith('/v1') else '/v1'}/{what}"
