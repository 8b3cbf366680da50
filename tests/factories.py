"""Small makers of the things that many tests need. Pure ones only: rows are made by fixtures."""

from typing import Any

import msgspec

from billing.rating import Price
from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from providers.chat import ChatRequest, OfferView


def price(**changed: Any) -> Price:
    """$0.10 per million tokens in, $0.05 cached, $0.40 out."""
    rates = {
        "version": 1,
        "sku": "acme/small",
        "input_pico": 100_000,
        "cache_read_pico": 50_000,
        "cache_write_5m_pico": 100_000,
        "cache_write_1h_pico": 100_000,
        "output_pico": 400_000,
        "reasoning_pico": 400_000,
    }
    return Price(**{**rates, **changed})


def offer_view(**changed: Any) -> OfferView:
    """A routable offer of the model `small` by `acme`, 8,192 tokens of context, 4,096 out."""
    fields = {
        "id": 1,
        "sku": "acme/small",
        "provider": "acme",
        "provider_name": "Acme",
        "model": "small",
        "upstream_model": "acme-small-v1",
        "wire": "openai",
        "base_url": "https://api.acme.example/v1",
        "headers": {"authorization": "Bearer upstream-secret"},
        "context_length": 8_192,
        "max_output_tokens": 4_096,
        "prices": (price(),),
        "in_house": False,
    }
    return OfferView(**{**fields, **changed})


def openai_body(**changed: Any) -> bytes:
    body = {"model": "small", "messages": [{"role": "user", "content": "Say hello."}]}
    return msgspec.json.encode({**body, **changed})


def anthropic_body(**changed: Any) -> bytes:
    body = {
        "model": "small",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    return msgspec.json.encode({**body, **changed})


def openai_request(**changed: Any) -> ChatRequest:
    return openai_chat.parse(openai_body(**changed), {})


def anthropic_request(**changed: Any) -> ChatRequest:
    return anthropic_messages.parse(anthropic_body(**changed), {})
