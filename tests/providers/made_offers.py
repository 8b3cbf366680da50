"""Makers of sellers, offers, prices, workers and usage events for the boards' tests."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec

from billing.events import AttemptDetail, AttemptEvent
from billing.models import Tenant, UsageEvent
from billing.money import pico_per_token
from billing.prices import versions as prices
from billing.usage import CanonicalUsage
from providers.machines import workers
from providers.machines.workers import Registration
from providers.models import Model, Offer, Provider, WorkerKey

# Later than the database's own clock, so that what it records itself is in the past.
NOW = datetime(2051, 11, 23, 12, 0, 30, tzinfo=UTC)
TENANT = 7


def make_offer(sku: str = "acme/small", **changed: Any) -> Offer:
    """An offer of the model `small` by an external seller that speaks the OpenAI wire."""
    seller, _, _ = sku.partition("/")
    provider, _ = Provider.objects.get_or_create(
        slug=seller,
        defaults={
            "name": seller.title(),
            "wire": Provider.Wire.OPENAI,
            "base_url": f"https://api.{seller}.example/v1",
        },
    )
    slug = changed.pop("model", "small")
    model, _ = Model.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    fields = {"upstream_model": "small-v1", "capabilities": ["chat"], "variant": sku} | changed
    return Offer.objects.create(sku=sku, provider=provider, model=model, **fields)


def publish(sku: str, dollars: tuple[str, str, str], since: datetime | None = None) -> None:
    """Input, cached input and output in dollars per million tokens."""
    input_pico, cached_pico, output_pico = (pico_per_token(Decimal(d)) for d in dollars)
    prices.publish(
        sku_code=sku,
        input_pico=input_pico,
        cache_read_pico=cached_pico,
        cache_write_5m_pico=input_pico,
        cache_write_1h_pico=input_pico,
        output_pico=output_pico,
        reasoning_pico=output_pico,
        valid_from=since or NOW - timedelta(days=100),
        source="test",
        recorded_by="test",
    )


def attempt(offer: Offer, number: int = 0, **changed: Any) -> AttemptEvent:
    """One served attempt: 300 tokens in, 200 of them cached, 100 out."""
    at_ms = int(NOW.timestamp() * 1000) + number
    fields: dict[str, Any] = {
        "request_id": f"0190{number:04x}-0000-7000-8000-000000000000",
        "attempt": 0,
        "tenant": TENANT,
        "key": 1,
        "sku": offer.sku,
        "offer": offer.pk,
        "supplier": offer.provider.slug,
        "model": offer.model.slug,
        "outcome": "ok",
        "usage": CanonicalUsage(input_tokens=300, output_tokens=100, cache_read_tokens=200),
        "usage_source": "provider",
        "tenant_cost_pico": 1_000,
        "occurred_ms": at_ms,
        "settled_ms": at_ms + 500,
        "detail": AttemptDetail(ttft_ms=50.0, e2e_ms=450.0, output_tps=80.0),
    }
    return AttemptEvent(**fields | changed)


def post(*found: AttemptEvent, **changed: Any) -> None:
    """Write events as the drain does when it posts them."""
    for tenant in {event.tenant for event in found}:
        Tenant.objects.get_or_create(pk=tenant, defaults={"slug": f"t{tenant}", "name": "Tenant"})
    UsageEvent.objects.bulk_create(UsageEvent(**_row(event) | changed) for event in found)


def request_id_of(at_ms: int) -> str:
    """A UUIDv7 of that moment."""
    digits, rest = f"{at_ms:012x}", uuid4().hex
    return f"{digits[:8]}-{digits[8:]}-7{rest[:3]}-8{rest[3:6]}-{rest[6:18]}"


def _row(event: AttemptEvent) -> dict[str, Any]:
    usage = event.usage or CanonicalUsage(input_tokens=0, output_tokens=0)
    at = datetime.fromtimestamp(event.occurred_ms / 1000, tz=UTC)
    return {
        "request_id": request_id_of(event.occurred_ms),
        "attempt": event.attempt,
        "day": at.date(),
        "tenant_id": event.tenant,
        "sku": event.sku,
        "offer_id": event.offer,
        "supplier": event.supplier,
        "model": event.model,
        "outcome": event.outcome,
        "usage_source": event.usage_source,
        **msgspec.structs.asdict(usage),
        "tenant_cost_pico": event.tenant_cost_pico,
        "occurred_at": at,
        "settled_at": at,
        "stream_id": "1-0",
        "body_hash": b"",
        "detail": msgspec.to_builtins(event.detail),
    }


def worker_key(network: str = "127.0.0.0/8") -> tuple[WorkerKey, str]:
    return workers.issue_key(label="test", allowed_network=network, created_by="op", now=NOW)


def registration(**changed: Any) -> Registration:
    """A worker at $0.36 an hour: $0.0001 a second, a quarter of its time on input."""
    fields: dict[str, Any] = {
        "name": "plain",
        "base_url": "http://127.0.0.1:8101",
        "bearer": "worker-bearer-secret",
        "model": "smollm2-135m-instruct",
        "context_length": 8192,
        "max_output_tokens": 2048,
        "techniques": ("paged-kv",),
        "usd_per_hour": Decimal("0.36"),
        "usd_per_hour_source": "entered",
        "calibration": {
            "input_tokens_per_s": 400.0,
            "output_tokens_per_s": 50.0,
            "input_time_share": 0.25,
            "seconds": 12.0,
            "sample": 16,
            "mix": "test",
        },
        "engine": {"version": "1"},
    }
    return Registration(**fields | changed)
