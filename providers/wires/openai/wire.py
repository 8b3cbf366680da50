"""The OpenAI Chat Completions wire, which most vendors and every in-house server speak.

Clients of this API: their body, spliced; of others the conversation. Usage is always asked for in
streams, whatever the client asked, and the output limit is always sent, because the hold rests on
it.
"""

from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from billing.kinds import ServiceTier
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
from providers.wires.openai import request as requests
from providers.wires.openai.body import StreamOptions
from providers.wires.openai.reader import StreamReader, WholeReader
from providers.wires.usage import convention

# Newer models of these refuse max_tokens; everybody else may not know the newer name.
_NEW_LIMIT_NAME = frozenset({"openai", "azure"})
_WITH_USAGE = {"include_usage": True}
# A count with every chunk, as vLLM calls it: a stream that ends early is counted as delivered.
_COUNTING = {"include_usage": True, "continuous_usage_stats": True}
# The tier that was priced is the one to be asked for, whatever dialect it was asked in.
_TIERS = {tier.value: tier.word for tier in ServiceTier if tier != ServiceTier.DEFAULT}
# The one thing about a stream that a caller may choose of a seller.
_OBFUSCATION = "include_obfuscation"
_stream_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_encode = msgspec.json.Encoder().encode
# Needs that it has no words for.
_LACKS = frozenset({"files", "citations", "prefill", "client_tools"})


class OpenAIWire:
    name: WireName = "openai"
    dialect: Dialect | None = "openai"

    def lacks(self, offer: OfferView) -> frozenset[str]:
        return _LACKS

    def unsaid(self, conversation: Conversation) -> set[Nuance]:
        return requests.unsaid(conversation)

    def build(
        self, request: ChatRequest, offer: OfferView, *, max_output_tokens: int
    ) -> UpstreamCall:
        """CannotSay where another dialect's conversation cannot be said here."""
        if request.dialect == self.dialect:
            body = _splice(request, offer, max_output_tokens)
        else:
            body = _written(request, offer, max_output_tokens)
        headers = {"content-type": "application/json", **offer.headers}
        if offer.in_house and not offer.pool and request.call_id:
            headers["x-request-id"] = request.call_id
        return UpstreamCall(url=endpoint(offer.base_url), headers=headers, body=body)

    def reader(self, request: ChatRequest, offer: OfferView | None = None) -> ResponseReader:
        rule = convention(offer.provider if offer is not None else "", "openai")
        model = offer.model if offer is not None else request.model
        if request.stream:
            return StreamReader(rule, choices=request.n, model=model)
        return WholeReader(rule, choices=request.n, model=model)

    def models_url(self, base_url: str) -> str:
        return endpoint(base_url, "models")


def _splice(request: ChatRequest, offer: OfferView, max_output_tokens: int) -> bytes:
    decided = _ours(request, offer)
    named = [
        name
        for name in ("max_tokens", "max_completion_tokens")
        if name in request.fields and bytes(request.fields[name]) != b"null"
    ]
    for name in named or [_limit_name(offer)]:
        decided[name] = max_output_tokens
    if request.stream and "stream_options" in request.fields:
        asked = _stream_options.decode(request.fields["stream_options"]) or {}
        if _OBFUSCATION in asked:
            options = _COUNTING if offer.in_house else _WITH_USAGE
            decided["stream_options"] = {**options, _OBFUSCATION: asked[_OBFUSCATION]}
    if request.service_tier in _TIERS:
        decided["service_tier"] = _TIERS[request.service_tier]
    elif "service_tier" in request.fields and offer.provider in _NEW_LIMIT_NAME:
        # Left at "auto" the vendor may serve, and bill, another tier than the one pinned.
        decided["service_tier"] = "default"
    return splice.spliced(request, offer, decided)


def _ours(request: ChatRequest, offer: OfferView) -> dict[str, splice.Decided]:
    """The fields that we decide."""
    fields: dict[str, splice.Decided] = {"model": offer.upstream_model}
    if request.stream:
        fields["stream"] = True
        fields["stream_options"] = _COUNTING if offer.in_house else _WITH_USAGE
    if salt := _salt(request, offer):
        fields["cache_salt"] = salt
    if priority := _priority(request, offer):
        fields["priority"] = priority
    return fields


def _written(request: ChatRequest, offer: OfferView, max_output_tokens: int) -> bytes:
    body = requests.chat_body(request.conversation)
    body.model = offer.upstream_model
    if request.stream:
        body.stream = True
        options = _COUNTING if offer.in_house else _WITH_USAGE
        body.stream_options = StreamOptions(**options)
    body.cache_salt = _salt(request, offer)
    body.priority = _priority(request, offer)
    body.service_tier = _TIERS.get(request.service_tier, "")
    setattr(body, _limit_name(offer), max_output_tokens)
    return _encode(body)


def _salt(request: ChatRequest, offer: OfferView) -> str:
    return request.cache_salt if offer.salted else ""


def _priority(request: ChatRequest, offer: OfferView) -> int:
    """A pool whose queue knows no priorities refuses whoever names one."""
    return request.priority if offer.salted and not offer.pool else 0


def _limit_name(offer: OfferView) -> str:
    return "max_completion_tokens" if offer.provider in _NEW_LIMIT_NAME else "max_tokens"


@lru_cache(maxsize=4096)
def endpoint(base_url: str, what: str = "chat/completions") -> str:
    """A base address without a path gets /v1; one with a path already says where its API is."""
    base = base_url.rstrip("/")
    return f"{base}{'' if urlsplit(base).path else '/v1'}/{what}"
