"""The Anthropic Messages wire.

Same dialect: the client's body, spliced, with the version and beta headers it sent. Another
dialect: translated, with max_tokens always set, as this API demands.
"""

from functools import lru_cache
from typing import Any

import msgspec

from providers.chat import ChatRequest, Dialect, OfferView, ResponseReader, UpstreamCall
from providers.wires import splice
from providers.wires.anthropic import to_messages
from providers.wires.anthropic.reader import StreamReader, WholeReader

VERSION = "2023-06-01"
# Only the default tier is priced here: the vendor must not move a request to another.
_STANDARD_ONLY = "standard_only"


class AnthropicWire:
    dialect: Dialect = "anthropic"

    def build(
        self, request: ChatRequest, offer: OfferView, *, max_output_tokens: int
    ) -> UpstreamCall:
        """BadRequest where a request of another dialect cannot be said in this one."""
        ours: dict[str, Any] = {
            "model": offer.upstream_model,
            "max_tokens": max_output_tokens,
        }
        if request.stream:
            ours["stream"] = True
        if request.dialect == "anthropic":
            if "service_tier" in request.fields:
                ours["service_tier"] = _STANDARD_ONLY
            if "unsigned_thinking" in request.needs:
                ours["messages"] = _signed(request)
            body = splice.spliced(request, offer, ours)
        else:
            body = splice.translated(to_messages.messages_body, request.body, ours)
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


def _signed(request: ChatRequest) -> list[Any]:
    """The messages without thoughts that nobody signed: they came from a model of another vendor,
    and this one refuses them."""
    messages = []
    for message in msgspec.json.decode(request.fields["messages"]):
        if isinstance(message["content"], list):
            message["content"] = [
                block
                for block in message["content"]
                if block["type"] != "thinking" or block.get("signature")
            ]
        if message["content"]:
            messages.append(message)
    return messages


@lru_cache(maxsize=4096)
def endpoint(base_url: str, what: str = "messages") -> str:
    base = base_url.rstrip("/")
    return f"{base}{'' if base.endswith('/v1') else '/v1'}/{what}"
