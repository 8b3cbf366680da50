"""Turns one catalogue entry of genai-prices into dated price versions. Pure.

The library's traps are closed here: a tier it does not price gets no version (it would answer with
the standard price), a model without token prices gets none (it would cost nothing).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from billing.kinds import ServiceTier
from billing.money import pico_from_usd, pico_per_token
from billing.prices.imports import HISTORY_BEGINS, DatedRates
from billing.rates import ALL_DAY, MINUTES_PER_DAY, Rates, Window

CONTEXTS: Mapping[int, Mapping[str, str]] = {
    ServiceTier.DEFAULT: {},
    ServiceTier.FLEX: {"service_tier": ServiceTier.FLEX.word},
    ServiceTier.PRIORITY: {"service_tier": ServiceTier.PRIORITY.word},
    ServiceTier.BATCH: {"processing": "batch"},
}
# Dearer than this per token is a unit mix-up, not a price: $10,000 per million.
RATE_PICO_MAX = 10**10
# Frames cannot be told from text in any usage that is read here: where they have a price of their
# own, charging the text price for them would be wrong, so the model has none.
UNTOLD = ("input_video_mtok", "output_video_mtok")
REQUESTS_PER_PRICE = 1_000
Place = tuple[int, Window]  # context threshold, hours


def schedule(model: ModelInfo) -> list[DatedRates]:
    """Every version of every tier, oldest first; empty where no token price is published."""
    starts = _starts(model)
    versions: list[DatedRates] = []
    for tier in CONTEXTS:
        spans = [_rates_by_place(model, tier, start) for start in starts]
        for place in sorted({place for span in spans for place in span}):
            versions.extend(_versions(tier, place, starts, spans))
    return versions


def _versions(
    tier: int,
    place: Place,
    starts: list[date | None],
    spans: list[dict[Place, Rates]],
) -> Iterator[DatedRates]:
    """One run of equal rates is one version; a gap (None) ends it."""
    threshold, window = place
    run: tuple[date | None, Rates] | None = None
    for start, span in zip([*starts, None], [*spans, {}], strict=True):
        rates = span.get(place)
        if run is not None and rates == run[1]:
            continue
        if run is not None:
            begins = _midnight(run[0]) or HISTORY_BEGINS
            yield DatedRates(tier, threshold, begins, _midnight(start), run[1], window)
        run = (start, rates) if rates is not None else None


def _starts(model: ModelInfo) -> list[date | None]:
    conditional = model.prices if isinstance(model.prices, list) else []
    constraints = [entry.constraint for entry in (*conditional, *(model.price_variants or ()))]
    dates = {c.start_date for c in constraints if isinstance(c, StartDateConstraint)}
    return [None, *sorted(dates)]


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def _edges(model: ModelInfo) -> list[int]:
    """The minutes of the day at which its price can change, midnight included."""
    entries = model.prices if isinstance(model.prices, list) else []
    constraints = [entry.constraint for entry in (*entries, *(model.price_variants or ()))]
    found = {0}
    for constraint in constraints:
        if isinstance(constraint, TimeOfDateConstraint):
            found |= {_minute(constraint.start_time), _minute(constraint.end_time)}
    return sorted(found)


def _minute(moment: time) -> int:
    moment = datetime.combine(HISTORY_BEGINS, moment, moment.tzinfo or UTC).astimezone(UTC).time()
    if moment.second or moment.microsecond:
        raise ValueError(f"a price that changes within a minute: {moment}")
    return moment.hour * 60 + moment.minute


def _rates_by_place(model: ModelInfo, tier: int, start: date | None) -> dict[Place, Rates]:
    """The dearest hours' rates hold all day; cheaper hours have windows of their own. Where it
    is not sold at every hour, nothing holds all day."""
    midnight = datetime.combine(start or HISTORY_BEGINS.date(), time(), UTC)
    edges = _edges(model)
    by_hour = [_rates_at(model, tier, midnight + timedelta(minutes=edge)) for edge in edges]
    dearest = max(by_hour, key=_weight) if all(by_hour) else {}
    places = {(threshold, ALL_DAY): rates for threshold, rates in dearest.items()}
    for window, resolved in _windows(edges, by_hour):
        if resolved and resolved != dearest:
            places |= {(threshold, window): rates for threshold, rates in resolved.items()}
    return places


def _weight(resolved: Mapping[int, Rates]) -> int:
    return resolved[0].input_pico + resolved[0].output_pico


def _windows(
    edges: Sequence[int], by_hour: Sequence[dict[int, Rates]]
) -> Iterator[tuple[Window, dict[int, Rates]]]:
    """Neighbours of equal rates are one window, past midnight too."""
    changes = [at for at in range(len(edges)) if by_hour[at] != by_hour[at - 1]]
    for number, at in enumerate(changes):
        following = edges[changes[(number + 1) % len(changes)]]
        yield Window(edges[at], following % MINUTES_PER_DAY), by_hour[at]


def _rates_at(model: ModelInfo, tier: int, moment: datetime) -> dict[int, Rates]:
    context = CONTEXTS[tier]
    if context and not _sold(model, context, moment):
        return {}
    return _resolve(model.get_prices(moment, context))


def _sold(model: ModelInfo, context: Mapping[str, str], moment: datetime) -> bool:
    """Whether the tier has prices of its own then; a tier without is not sold at all."""
    return any(
        dict(variant.when) == context
        and any(value is not None for value in variant.prices.__dict__.values())
        and (variant.constraint is None or variant.constraint.active(moment))
        for variant in model.price_variants or ()
    )


def _resolve(price: ModelPrice) -> dict[int, Rates]:
    stated = {key: value for key, value in price.__dict__.items() if value is not None}
    if "input_mtok" not in stated or "output_mtok" not in stated:
        return {}
    if any(key in stated for key in UNTOLD):
        return {}
    thresholds = {
        tier.start
        for value in stated.values()
        if isinstance(value, TieredPrices)
        for tier in value.tiers
    }
    return {threshold: _rates(stated, threshold) for threshold in {0, *thresholds}}


def _rates(stated: Mapping[str, Decimal | TieredPrices], threshold: int) -> Rates:
    def at(key: str) -> int | None:
        value = stated.get(key)
        return None if value is None else _pico(value, threshold)

    plain_input, plain_output = at("input_mtok"), at("output_mtok")
    assert plain_input is not None
    assert plain_output is not None
    write = at("cache_write_mtok")
    write = plain_input if write is None else write
    return Rates(
        input_pico=plain_input,
        cache_read_pico=_or(at("cache_read_mtok"), plain_input),
        cache_write_5m_pico=write,
        cache_write_1h_pico=_or(at("cache_write_1h_mtok"), write),
        output_pico=plain_output,
        reasoning_pico=_or(at("output_reasoning_mtok"), plain_output),
        input_audio_pico=at("input_audio_mtok"),
        # A picture is metered in input tokens, and has the input's price where none is stated.
        # Sound is often dearer than any text: without a price it is not sold.
        input_image_pico=_or(at("input_image_mtok"), plain_input),
        output_audio_pico=at("output_audio_mtok"),
        request_pico=_request_pico(stated.get("requests_kcount")),
    )


def _or(value: int | None, fallback: int) -> int:
    return fallback if value is None else value


def _request_pico(usd_per_thousand: Decimal | TieredPrices | None) -> int:
    if usd_per_thousand is None:
        return 0
    if isinstance(usd_per_thousand, TieredPrices):
        raise ValueError(f"a fee per request that depends on its size: {usd_per_thousand}")
    return pico_from_usd(usd_per_thousand / REQUESTS_PER_PRICE)


def _pico(value: Decimal | TieredPrices, threshold: int) -> int:
    if isinstance(value, TieredPrices):
        reached = [tier for tier in value.tiers if tier.start <= threshold]
        value = max(reached, key=lambda t: t.start).price if reached else value.base
    pico = pico_per_token(value)
    if not 0 <= pico <= RATE_PICO_MAX:
        raise ValueError(f"not a price per million tokens: {value}")
    return pico
