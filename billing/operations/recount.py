"""Token counts held against what was delivered: a figure for who resolves an event without usage,
and a report per supplier of what it counts against what its text makes likely. Read only.

A recount is an estimate. Its basis is said with it: our own engine's count of the same model where
it sells it, else the middle of at least three suppliers, else four bytes a token.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

import msgspec
from django.db import connection

from billing import rating
from billing.books.usage_queries import first_id_of
from billing.events import Estimated
from billing.kinds import ServiceTier
from billing.models import UsageEvent
from billing.prices import admitted_prices
from billing.rates import PPM
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError

LOOKED_BACK: Final = timedelta(days=7)
EVENTS_MAX: Final = 25_000
SUPPLIERS_LEAST: Final = 3
REQUESTS_LEAST: Final = 20
DRIFT_PPM: Final = 50_000
BYTES_PER_TOKEN: Final = 4
OWN: Final = "our own engine's count"
MIDDLE: Final = "the middle of its suppliers"
ROUGH: Final = "four bytes a token"

_SUPPLIERS_SQL: Final = """
    WITH RECURSIVE suppliers AS (
        SELECT min(supplier) AS name FROM billing_usageevent
        UNION ALL
        SELECT (SELECT min(supplier) FROM billing_usageevent WHERE supplier > name)
        FROM suppliers WHERE name IS NOT NULL
    )
    SELECT name FROM suppliers WHERE name IS NOT NULL
"""
# Hidden reasoning is counted and not delivered: such answers say nothing about honesty. So many
# events are read, whatever they hold: the page is no walk over a week of the house. Of each
# supplier equally many, or the busiest would leave nothing of the others.
_DELIVERED_SQL: Final = """
    SELECT name, model, count(*), sum(output_tokens), sum(bytes)
    FROM unnest(%s::text[]) name CROSS JOIN LATERAL (
        SELECT *, (detail ->> 'output_bytes')::bigint AS bytes FROM (
            SELECT model, output_tokens, reasoning_tokens, output_audio_tokens, detail,
                occurred_at, outcome, usage_source, state
            FROM billing_usageevent WHERE supplier = name AND request_id >= %s
            ORDER BY request_id DESC LIMIT %s
        ) newest
    ) answers
    WHERE outcome = 'ok' AND usage_source = 'provider' AND state = 'posted'
        AND reasoning_tokens = 0 AND output_audio_tokens = 0 AND output_tokens > 0 AND bytes > 0
    GROUP BY name, model
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What one supplier reported of one model, against the recount of the text it delivered."""

    supplier: str
    model: str
    requests: int
    reported_tokens: int
    delivered_bytes: int
    recounted_tokens: int
    basis: str

    @property
    def drift_ppm(self) -> int:
        """How much more it reported than recounted, in parts per million."""
        return (self.reported_tokens - self.recounted_tokens) * PPM // max(self.recounted_tokens, 1)

    @property
    def is_suspect(self) -> bool:
        """Too far off on too many requests; a rough basis suspects nobody."""
        return (
            self.basis != ROUGH
            and self.requests >= REQUESTS_LEAST
            and abs(self.drift_ppm) > DRIFT_PPM
        )


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What an event without usable counts probably used, what that costs its tenant, and what its
    supplier bills for it; None where no price says."""

    input_tokens: int
    output_tokens: int
    cost_pico: int | None
    supplier_pico: int | None


def drifts(*, trusted: Collection[str], now: datetime) -> list[Drift]:
    """Every supplier and model of the newest answers, the farthest off first. `trusted` are the
    suppliers whose counts are ours."""
    with connection.cursor() as cursor:
        cursor.execute(_SUPPLIERS_SQL)
        suppliers = [name for (name,) in cursor.fetchall()]
        # However many there are, or were: of each enough to be judged by.
        of_each = max(EVENTS_MAX // max(len(suppliers), 1), REQUESTS_LEAST)
        cursor.execute(_DELIVERED_SQL, [suppliers, first_id_of(now - LOOKED_BACK), of_each])
        rows = [(*row[:2], *map(int, row[2:])) for row in cursor.fetchall()]
    by_model: dict[str, list[tuple[str, int, int, int]]] = defaultdict(list)
    for supplier, model, requests, tokens, size in rows:
        by_model[model].append((supplier, requests, tokens, size))
    found = [
        Drift(
            supplier=supplier,
            model=model,
            requests=requests,
            reported_tokens=tokens,
            delivered_bytes=size,
            recounted_tokens=int(size * tokens_per_byte),
            basis=basis,
        )
        for model, counted in by_model.items()
        for tokens_per_byte, basis in [_basis(counted, trusted)]
        for supplier, requests, tokens, size in counted
    ]
    return sorted(found, key=lambda d: (not d.is_suspect, -abs(d.drift_ppm), d.supplier, d.model))


def _basis(
    counted: Sequence[tuple[str, int, int, int]], trusted: Collection[str]
) -> tuple[Fraction, str]:
    """Tokens per byte of this model's text, and where the figure comes from."""
    own = [(tokens, size) for supplier, _, tokens, size in counted if supplier in trusted]
    if own:
        return Fraction(sum(t for t, _ in own), sum(s for _, s in own)), OWN
    if len(counted) >= SUPPLIERS_LEAST:
        return _middle(Fraction(tokens, size) for _, _, tokens, size in counted), MIDDLE
    return Fraction(1, BYTES_PER_TOKEN), ROUGH


def _middle(ratios: Iterable[Fraction]) -> Fraction:
    ordered = sorted(ratios)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) * Fraction(1, 2)


def suggestion(event: UsageEvent) -> Suggestion | None:
    """What an event without usable counts probably was; None where nothing is known."""
    usage, cost_pico = _probable(event)
    if usage is None:
        return None
    admitted = admitted_prices.of(event)
    if cost_pico is None:
        cost_pico = _cost(usage, admitted.tenant)
    supplier_pico = _cost(usage, admitted.supplier)
    return Suggestion(usage.input_tokens, usage.output_tokens, cost_pico, supplier_pico)


def _probable(event: UsageEvent) -> tuple[CanonicalUsage | None, int | None]:
    """The data plane's estimate, rated where it was made; else what was counted."""
    found = event.detail.get("estimate")
    if found is not None:
        estimate = msgspec.convert(found, Estimated)
        return _plain(estimate.input_tokens, estimate.output_tokens), estimate.tenant_pico
    # As release 0.1 wrote it down.
    counted = event.detail.get("recount")
    if isinstance(counted, list) and len(counted) == 2:
        return _plain(int(counted[0]), int(counted[1])), None
    if event.input_tokens or event.output_tokens:
        counts = {name: getattr(event, name) for name in CanonicalUsage.__struct_fields__}
        return CanonicalUsage(**counts), None
    return None, None


def _plain(input_tokens: int, output_tokens: int) -> CanonicalUsage:
    return CanonicalUsage(input_tokens=input_tokens, output_tokens=output_tokens)


def _cost(usage: CanonicalUsage, prices: Sequence[Price]) -> int | None:
    try:
        price = rating.choose(
            prices, service_tier=ServiceTier.DEFAULT, input_tokens=usage.input_tokens
        )
        return rating.rate(usage, price)
    except (PriceNotFound, UsageError):
        return None
