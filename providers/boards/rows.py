"""One board's figures: the reference mix, every row re-priced on it, the ranks. Pure.

What each figure means is written in docs/leaderboards.md. Prices stay exact until the last
step, where an effective price is rounded to a whole pico-dollar per token.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

from billing.prices.list_prices import ListPrice
from providers.boards import engine_facts, histograms, technique_costs, weights
from providers.boards.histograms import Histogram
from providers.boards.price_moves import Move
from providers.boards.shapes import (
    Effective,
    ListFigures,
    MixFigures,
    Row,
    Speculation,
    SpeculationFact,
    Speeds,
    Times,
    Tokens,
    Uptime,
)
from providers.boards.windows import Measured
from providers.models import Offer, Provider, Worker

# A cache-hit rate settles early; a percentile of a tail does not.
REQUESTS_LEAST = 10
SAMPLES_LEAST = 20
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Mix:
    """The tokens that every offer of a board is priced on."""

    uncached_tokens: int
    cached_tokens: int
    output_tokens: int
    requests: int
    source: str

    @property
    def input_tokens(self) -> int:
        return self.uncached_tokens + self.cached_tokens

    @property
    def cached_share(self) -> Fraction:
        return Fraction(self.cached_tokens, self.input_tokens)

    @property
    def figures(self) -> MixFigures:
        return MixFigures(
            source=self.source,
            requests=self.requests,
            uncached_tokens=self.uncached_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            input_per_output=round(self.input_tokens / self.output_tokens, 2),
            cache_share=round(float(self.cached_share), 3),
        )


STANDARD_MIX = Mix(3 * MILLION, 0, MILLION, 0, "standard")


@dataclass(frozen=True, slots=True)
class Seller:
    """All that is known of one offer when its row is made."""

    offer: Offer
    price: ListPrice | None
    measured: Measured
    worker: Worker | None
    not_routable: str
    move: Move | None = None


def mix_of(measured: Iterable[Measured]) -> Mix:
    """All served requests of a window as one mix, none above its limit; the standard one where
    there are too few."""
    served = weights.weighed(histograms.merged(m.maps["served"] for m in measured))
    if served.requests < REQUESTS_LEAST or not served.output_tokens or not served.input_tokens:
        return STANDARD_MIX
    cached, output = round_half_up(served.cached_tokens), round_half_up(served.output_tokens)
    uncached = round_half_up(served.input_tokens - served.cached_tokens)
    return Mix(uncached, cached, max(output, 1), served.requests, "traffic")


def effective_pico(mix: Mix, price: ListPrice, *, cached_share: Fraction) -> int:
    """The mix at this price with this cache-hit rate, per output token."""
    share = cached_share
    cost = (
        mix.input_tokens * (1 - share) * price.input_pico
        + mix.input_tokens * share * price.cache_read_pico
        + mix.output_tokens * price.output_pico
        + mix.requests * price.request_pico
    )
    return round_half_up(cost / mix.output_tokens)


def round_half_up(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


def rows(sellers: Sequence[Seller], mix: Mix) -> list[Row]:
    """The rows of a board, ranked by effective price, offers without one last."""
    made = [_row(seller, mix) for seller in sellers]
    made.sort(key=_order)
    rank = 0
    for row in made:
        if row.effective is not None:
            rank += 1
            row.rank = rank
    return made


def _order(row: Row) -> tuple[bool, int, str]:
    effective = row.effective
    return (effective is None, effective.pico if effective else 0, row.sku)


def _row(seller: Seller, mix: Mix) -> Row:
    offer, price, measured = seller.offer, seller.price, seller.measured
    counts = measured.counts
    figures = _Figures.of(measured)
    return Row(
        offer_id=offer.pk,
        sku=offer.sku,
        provider=offer.provider.slug,
        provider_name=offer.provider.name,
        kind=offer.provider.kind,
        variant=offer.variant,
        upstream_model=offer.upstream_model,
        techniques=offer.techniques,
        quantization=offer.quantization,
        context_length=offer.context_length,
        state=offer.state,
        state_reason=offer.state_reason,
        routable=not seller.not_routable,
        not_routable=seller.not_routable,
        rank=None,
        paid_pico=_paid_pico(counts),
        list=_listed(price) if price else None,
        blended_3_1_pico=_blended_pico(price, cached=0, entered=3, output=1),
        blended_7_2_1_pico=_blended_pico(price, cached=7, entered=2, output=1),
        effective=_effective(seller, price, mix) if price else None,
        requests=counts["requests"],
        succeeded=counts["succeeded"],
        failed=counts["failed"],
        cancelled=counts["cancelled"],
        errors=measured.errors,
        tokens=Tokens(
            input=counts["input_tokens"],
            cached=counts["cached_tokens"],
            output=counts["output_tokens"],
        ),
        ttft_ms=figures.ttft_ms,
        output_tps=figures.output_tps,
        e2e_ms=figures.e2e_ms,
        uptime=figures.uptime,
        too_few=figures.too_few,
        last_at=measured.last_at.isoformat() if measured.last_at else None,
        speculation=_speculation(measured),
        move=seller.move.figures if seller.move else None,
        hourly=engine_facts.hourly(seller.worker),
        audit=engine_facts.audit(seller.worker),
        energy=engine_facts.energy(seller.worker),
        quality=engine_facts.quality(seller.worker),
        costs=technique_costs.of(seller.worker),
    )


def _paid_pico(counts: Mapping[str, int]) -> int | None:
    output = counts["paid_output_tokens"]
    return round_half_up(Fraction(counts["cost_pico"], output)) if output else None


def _listed(price: ListPrice) -> ListFigures:
    return ListFigures(
        input_pico=price.input_pico,
        cached_pico=price.cache_read_pico,
        output_pico=price.output_pico,
        price_version=price.version,
        since=price.since.isoformat(),
        source=price.source,
        free=price.free,
    )


def _blended_pico(price: ListPrice | None, *, cached: int, entered: int, output: int) -> int | None:
    """The list price of a token of a fixed mix."""
    if price is None:
        return None
    asked = cached * price.cache_read_pico + entered * price.input_pico + output * price.output_pico
    return round_half_up(Fraction(asked, cached + entered + output))


def _effective(seller: Seller, price: ListPrice, mix: Mix) -> Effective:
    measured_share = _cached_share(seller.measured)
    share = measured_share or Fraction(0)
    return Effective(
        pico=effective_pico(mix, price, cached_share=share),
        basis="list" if measured_share is None else "measured",
        cache_share=round(float(share), 3),
    )


def _cached_share(measured: Measured) -> Fraction | None:
    """An offer's own cache-hit rate over what it served; None where that says nothing."""
    served = weights.weighed(measured.maps["served"])
    if served.requests < REQUESTS_LEAST or not served.input_tokens:
        return None
    return served.cached_tokens / served.input_tokens


@dataclass(frozen=True, slots=True)
class _Figures:
    """What was measured often enough to say; None where it was not."""

    ttft_ms: Times | None
    output_tps: Speeds | None
    e2e_ms: Times | None
    uptime: Uptime | None

    @classmethod
    def of(cls, measured: Measured) -> "_Figures":
        return cls(
            ttft_ms=_times(measured.maps["ttft_ms_histogram"]),
            output_tps=_speeds(measured.maps["output_tps_histogram"]),
            e2e_ms=_times(measured.maps["e2e_ms_histogram"]),
            uptime=_uptime(measured.counts),
        )

    @property
    def too_few(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name) is None]


def _times(histogram: Histogram) -> Times | None:
    n = histograms.size(histogram)
    if n < SAMPLES_LEAST:
        return None
    p50, p95 = _percentiles(histogram, 50, 95)
    return Times(p50=p50, p95=p95, n=n)


def _speeds(histogram: Histogram) -> Speeds | None:
    n = histograms.size(histogram)
    if n < SAMPLES_LEAST:
        return None
    p50, p5 = _percentiles(histogram, 50, 5)
    return Speeds(p50=p50, p5=p5, n=n)


def _percentiles(histogram: Histogram, *percents: int) -> Iterator[float]:
    samples = weights.samples(histogram)
    for percent in percents:
        yield round(histograms.percentile(samples, Fraction(percent, 100)) or 0, 1)


def _uptime(counts: Mapping[str, int]) -> Uptime | None:
    if counts["succeeded"] + counts["failed"] < SAMPLES_LEAST:
        return None
    percent = 100 * counts["minutes_up"] / counts["minutes_seen"]
    return Uptime(percent=round(percent, 2), minutes=counts["minutes_seen"])


def _speculation(measured: Measured) -> Speculation | None:
    counts = measured.counts
    if not counts["drafted_tokens"] or not counts["target_steps"]:
        return None
    return Speculation(
        acceptance_rate=round(counts["accepted_tokens"] / counts["drafted_tokens"], 3),
        acceptance_length=round(1 + counts["accepted_tokens"] / counts["target_steps"], 3),
    )


def speculation_fact(
    sellers: Sequence[Seller], made: Sequence[Row], mix: Mix
) -> SpeculationFact | None:
    """What speculation saves: the cheapest measured in-house offer with it and without it.

    Both are priced on the mix's own cache share, not on each offer's: which of the two happened
    to see a prompt again says nothing about speculation.
    """
    prices = {seller.offer.sku: seller.price for seller in sellers}
    own: list[tuple[int, Row]] = []
    for row in made:
        price, effective = prices[row.sku], row.effective
        if row.kind != Provider.Kind.IN_HOUSE or price is None or effective is None:
            continue
        if effective.basis == "measured":
            cost = effective_pico(mix, price, cached_share=mix.cached_share)
            own.append((cost, row))
    plain = min((pair for pair in own if not _speculates(pair[1])), key=_cost, default=None)
    fast = min((pair for pair in own if _speculates(pair[1])), key=_cost, default=None)
    if plain is None or fast is None or not plain[0]:
        return None
    return SpeculationFact(
        percent=round(100 * (plain[0] - fast[0]) / plain[0], 1),
        plain_sku=plain[1].sku,
        fast_sku=fast[1].sku,
        plain_effective_pico=plain[0],
        fast_effective_pico=fast[0],
        n=plain[1].requests + fast[1].requests,
    )


def _cost(pair: tuple[int, Row]) -> int:
    return pair[0]


def _speculates(row: Row) -> bool:
    return any(technique.endswith("-speculation") for technique in row.techniques)
