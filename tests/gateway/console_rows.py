"""Rows for the console's tests: offers with prices, served and refused requests, rollups.

They go through the services that make them in life where one exists (prices, ledger), and are
written as the drain would write them where not.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from random import Random
from typing import Any
from uuid import UUID

from billing import basis
from billing.books import ledger
from billing.books.ledger import AccountKey, Draft, Leg
from billing.models import Account, PriceVersion, Tenant, Transfer, UsageEvent
from billing.money import nano_ceil
from billing.prices import versions as prices
from billing.rating import rate
from billing.usage import CanonicalUsage
from gateway.models import Refusal
from providers.boards import histograms
from providers.models import MeasurementRollup, Model, Offer, Provider

RANDOM = Random(7)


@dataclass(frozen=True, slots=True)
class Priced:
    offer: Offer
    version: PriceVersion

    @property
    def sku(self) -> str:
        return self.offer.sku


def request_id_at(at: datetime) -> UUID:
    """A UUIDv7 of that instant."""
    ms = int(at.timestamp() * 1000)
    return UUID(
        int=ms << 80 | 7 << 76 | RANDOM.getrandbits(12) << 64 | 2 << 62 | RANDOM.getrandbits(62)
    )


def offer(
    provider: str = "acme",
    model: str = "small",
    *,
    variant: str = "",
    kind: str = Provider.Kind.EXTERNAL,
    input_pico: int = 100_000,
    cached_pico: int = 50_000,
    output_pico: int = 400_000,
    since: datetime | None = None,
    **terms: Any,
) -> Priced:
    """An offer with a price in force; the provider and the model are made where they are new."""
    seller, _ = Provider.objects.get_or_create(
        slug=provider,
        defaults={"name": provider.capitalize(), "kind": kind, "wire": Provider.Wire.OPENAI},
    )
    sold, _ = Model.objects.get_or_create(
        slug=model, defaults={"name": model.capitalize(), "context_length": 8192}
    )
    sku = "/".join(part for part in (provider, model, variant) if part)
    made = Offer.objects.create(
        provider=seller,
        model=sold,
        variant=variant,
        sku=sku,
        upstream_model=model,
        capabilities=["chat"],
        **terms,
    )
    version = prices.publish(
        sku_code=sku,
        input_pico=input_pico,
        cache_read_pico=cached_pico,
        cache_write_5m_pico=input_pico,
        cache_write_1h_pico=input_pico,
        output_pico=output_pico,
        reasoning_pico=output_pico,
        valid_from=since or datetime(2026, 1, 1, tzinfo=UTC),
        source="list",
        recorded_by="tests",
    )
    return Priced(offer=made, version=version)


def served(
    tenant: Tenant,
    sold: Priced,
    *,
    at: datetime,
    key_id: int | None = None,
    team_id: int | None = None,
    request_id: UUID | None = None,
    attempt: int = 1,
    outcome: str = "ok",
    input_tokens: int = 1_204,
    cached_tokens: int = 700,
    output_tokens: int = 318,
    billable: bool = True,
    post: bool = True,
    supplier_share: Decimal = Decimal(1),
    usage_source: str = basis.PROVIDER,
    **detail: Any,
) -> UsageEvent:
    """One attempt, drained and posted."""
    usage = CanonicalUsage(
        input_tokens=input_tokens, cache_read_tokens=cached_tokens, output_tokens=output_tokens
    )
    rated = rate(usage, prices.as_price(sold.version))
    cost = rated if billable else 0
    supplier_cost = int(rated * supplier_share)
    transfer = _posted(tenant, sold, cost, supplier_cost) if post and cost else None
    times = {"ttft_ms": 188.4, "e2e_ms": 2_310.0, "output_tps": 91.2, "status": 200}
    return UsageEvent.objects.create(
        request_id=request_id or request_id_at(at - timedelta(milliseconds=3)),
        attempt=attempt,
        day=at.date(),
        tenant=tenant,
        team_id=team_id,
        api_key_id=key_id,
        sku=sold.sku,
        price_version=sold.version,
        offer_id=sold.offer.pk,
        supplier=sold.offer.provider.slug,
        model=sold.offer.model.slug,
        outcome=outcome,
        usage_source=usage_source,
        input_tokens=input_tokens,
        cache_read_tokens=cached_tokens,
        output_tokens=output_tokens,
        tenant_cost_pico=cost,
        supplier_cost_pico=supplier_cost,
        hold_nano=nano_ceil(rated * 3),
        charged_nano=nano_ceil(cost),
        occurred_at=at,
        settled_at=at + timedelta(milliseconds=times["e2e_ms"]),
        body_hash=sha256(str(at).encode()).digest(),
        detail={"surface": "openai", "stream": True, "policy": "cheapest", **times, **detail},
        transfer=transfer,
    )


def _posted(tenant: Tenant, sold: Priced, cost: int, supplier_cost: int) -> Transfer:
    kinds = Account.Kind
    supplier = sold.offer.provider.slug
    return ledger.post(
        Draft(
            code=Transfer.Code.USAGE,
            legs=(
                Leg(AccountKey(kinds.TENANT_CREDIT, tenant.pk), cost),
                Leg(AccountKey(kinds.REVENUE), -cost),
                Leg(AccountKey(kinds.COST_OF_SALES, None, supplier), supplier_cost),
                Leg(AccountKey(kinds.PROVIDER_PAYABLE, None, supplier), -supplier_cost),
            ),
            idempotency_key=f"tests:{RANDOM.getrandbits(64):x}",
            tenant_id=tenant.pk,
        )
    )


def refused(tenant: Tenant, *, at: datetime, key_id: int | None = None, **fields: Any) -> Refusal:
    known = {
        "model": "small",
        "status": 402,
        "code": "over_budget",
        "message": "The key's budget for the month has $0.02 left; this request may cost $0.05.",
        "detail": {"scope": "key", "window": "month"},
    }
    return Refusal.objects.create(
        request_id=request_id_at(at),
        tenant=tenant,
        api_key_id=key_id,
        occurred_at=at,
        **{**known, **fields},
    )


def measured(sold: Priced, *, at: datetime, requests: int, tps: float, ttft_ms: float) -> None:
    """Rollups of every span, as if so many equal requests had been served at that moment."""
    starts = {
        "minute": at.replace(second=0, microsecond=0),
        "hour": at.replace(minute=0, second=0, microsecond=0),
        "day": at.replace(hour=0, minute=0, second=0, microsecond=0),
    }
    for span, start in starts.items():
        MeasurementRollup.objects.create(
            offer=sold.offer,
            span=span,
            start=start,
            requests=requests,
            succeeded=requests,
            minutes_seen=1,
            minutes_up=1,
            input_tokens=3_000 * requests,
            cached_tokens=2_000 * requests,
            output_tokens=1_000 * requests,
            paid_output_tokens=1_000 * requests,
            served={
                "0.12.requests": requests,
                "0.12.input": 3_000 * requests,
                "0.12.cached": 2_000 * requests,
                "0.12.output": 1_000 * requests,
            },
            cost_pico=requests * 600_000_000,
            ttft_ms_histogram={f"0.{histograms.bucket_of(ttft_ms)}": requests},
            output_tps_histogram={f"0.{histograms.bucket_of(tps)}": requests},
            e2e_ms_histogram={f"0.{histograms.bucket_of(ttft_ms * 10)}": requests},
            last_at=at,
            updated_at=at,
        )
