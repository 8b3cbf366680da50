"""The first page of the board: one row per model that somebody sells for chat.

Prices are compared on the standard mix, free listings left out where anything else is sold. The
whole is made in one pass over offers and prices and kept until something in it changed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

import msgspec

from billing import fault_isolation
from billing.prices import list_prices as price_queries
from billing.prices.list_prices import ListPrice
from providers.boards import histograms, weights
from providers.boards import rows as board_rows
from providers.boards.rows import SAMPLES_LEAST, STANDARD_MIX
from providers.boards.shapes import Fastest, HomeRow, Listed
from providers.boards.windows import WINDOWS, Measured, measured
from providers.market import offers
from providers.market.model_names import CREATOR_SELLERS
from providers.models import HomeBoard, Offer, Provider

MAKE_AGAIN_AFTER = timedelta(minutes=5)
MAKE_AGAIN_WHEN_STALE = timedelta(seconds=10)
# The line and the figure below it are of one window.
CHANGE_OVER = timedelta(days=30)
HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class _Sold:
    """One offer of a model with its price in force."""

    offer: Offer
    price: ListPrice
    effective_pico: int

    @property
    def figures(self) -> Listed:
        return Listed(
            sku=self.offer.sku,
            provider_name=self.offer.provider.name,
            output_pico=self.price.output_pico,
            effective_pico=self.effective_pico,
        )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one pass over the database found."""

    now: datetime
    in_force: Mapping[str, ListPrice]
    history: Mapping[str, Sequence[ListPrice]]
    measured: Mapping[int, Measured]
    refusals: Mapping[int, str]


def rows(*, now: datetime) -> list[HomeRow]:
    """The kept rows; made here if nobody has made them yet."""
    kept = HomeBoard.objects.first()
    if kept is None:
        refresh(now=now, is_stale=True)
        kept = HomeBoard.objects.get()
    return msgspec.convert(kept.rows, list[HomeRow])


def refresh(*, now: datetime, is_stale: bool) -> bool:
    """Make the rows again if they are old, or if something changed and they are not quite new."""
    kept = HomeBoard.objects.first()
    age = now - kept.computed_at if kept else None
    limit = MAKE_AGAIN_WHEN_STALE if is_stale else MAKE_AGAIN_AFTER
    if age is not None and age < limit:
        return False
    made = msgspec.to_builtins(compute(now=now))
    HomeBoard.objects.update_or_create(pk=1, defaults={"computed_at": now, "rows": made})
    return True


def made_at() -> datetime | None:
    """When the kept rows were made."""
    return HomeBoard.objects.values_list("computed_at", flat=True).first()


def compute(*, now: datetime) -> list[HomeRow]:
    """Every row anew: models with traffic first, then our own, then by number of sellers."""
    found = list(
        Offer.objects.filter(capabilities__contains=[offers.CHAT])
        .exclude(state=Offer.State.DISABLED)
        .select_related("provider", "model")
    )
    in_force = price_queries.in_force(now)
    facts = _Facts(
        now=now,
        in_force=in_force,
        history=price_queries.history(now - CHANGE_OVER),
        measured=measured(WINDOWS["30d"], now=now),
        refusals=offers.refusals(found, priced=in_force),
    )
    by_model: dict[int, list[Offer]] = defaultdict(list)
    for offer in found:
        if offer.sku in in_force:
            by_model[offer.model_id].append(offer)
    made = fault_isolation.each(
        by_model.values(),
        lambda group: (_traffic(group, facts), _row(group, facts)),
        name=lambda group: group[0].model.slug,
    )
    return [row for _, row in sorted(made, key=_order)]


def _order(weighed: tuple[Fraction, HomeRow]) -> tuple[Fraction, bool, int, str]:
    traffic, row = weighed
    return (-traffic, row.in_house is None, -row.sellers, row.model)


def _traffic(group: Iterable[Offer], facts: _Facts) -> Fraction:
    """The served requests that a model's place is by: nobody calls a model to the top alone."""
    found = (facts.measured.get(offer.pk) for offer in group)
    return weights.requests_weighed(histograms.merged(m.maps["served"] for m in found if m))


def _row(group: Sequence[Offer], facts: _Facts) -> HomeRow:
    model = group[0].model
    listed = _listed(group, facts.in_force)
    paid = [one for one in listed if not one.price.free] or listed
    own = [one for one in listed if one.offer.provider.kind == Provider.Kind.IN_HOUSE]
    creator_seller = CREATOR_SELLERS.get(model.creator)
    creators = [one for one in paid if one.offer.provider.slug == creator_seller]
    cheapest_pico, dearest_pico = paid[0].effective_pico, paid[-1].effective_pico
    spark = _spark(paid, facts)
    return HomeRow(
        model=model.slug,
        name=model.name,
        creator=model.creator,
        sellers=len({offer.provider_id for offer in group}),
        routable=sum(not facts.refusals[offer.pk] for offer in group),
        requests=sum(_counted(facts, offer) for offer in group),
        cheapest=paid[0].figures,
        creator_price=creators[0].figures if creators else None,
        in_house=own[0].figures if own else None,
        spread=round(dearest_pico / cheapest_pico, 2) if cheapest_pico and len(paid) > 1 else None,
        change_30d_percent=_change(spark, facts.now),
        spark=spark,
        fastest=_fastest(group, facts),
    )


def _listed(group: Iterable[Offer], in_force: Mapping[str, ListPrice]) -> list[_Sold]:
    listed = []
    for offer in group:
        price = in_force[offer.sku]
        effective = board_rows.effective_pico(STANDARD_MIX, price, cached_share=Fraction(0))
        listed.append(_Sold(offer, price, effective))
    return sorted(listed, key=lambda one: (one.effective_pico, one.offer.sku))


def _counted(facts: _Facts, offer: Offer) -> int:
    found = facts.measured.get(offer.pk)
    return found.counts["requests"] if found else 0


def _spark(paid: Iterable[_Sold], facts: _Facts) -> list[tuple[str, int]]:
    """The lowest output price on offer, at every moment it changed in the window."""
    versions = [v for one in paid for v in facts.history.get(one.offer.sku, ()) if not v.free]
    begin = facts.now - CHANGE_OVER
    moments = {max(v.since, begin) for v in versions if v.since <= facts.now}
    moments |= {v.until for v in versions if v.until and begin < v.until <= facts.now}
    steps: list[tuple[str, int]] = []
    for moment in sorted(moments):
        open_now = [
            v.output_pico
            for v in versions
            if v.since <= moment and (v.until is None or moment < v.until)
        ]
        lowest = min(open_now, default=None)
        if lowest is not None and (not steps or steps[-1][1] != lowest):
            steps.append((moment.isoformat(), lowest))
    return steps


def _change(spark: Sequence[tuple[str, int]], now: datetime) -> float | None:
    """How much the lowest output price moved in 30 days; None where nothing was sold then."""
    then = [pico for moment, pico in spark if moment <= (now - CHANGE_OVER).isoformat()]
    if not then or not then[-1]:
        return None
    return round(100 * (spark[-1][1] - then[-1]) / then[-1], 1)


def _fastest(group: Iterable[Offer], facts: _Facts) -> Fastest | None:
    best: Fastest | None = None
    for offer in group:
        found = facts.measured.get(offer.pk)
        histogram = found.maps["output_tps_histogram"] if found else {}
        sample = histograms.size(histogram)
        if sample < SAMPLES_LEAST:
            continue
        speed = round(histograms.percentile(weights.samples(histogram), HALF) or 0, 1)
        if best is None or speed > best.output_tps_p50:
            best = Fastest(
                sku=offer.sku,
                provider_name=offer.provider.name,
                output_tps_p50=speed,
                n=sample,
            )
    return best
