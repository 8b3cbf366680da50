"""Publishes the prices of our own machines: first from calibration, then from what they really did.

Tenants pay only published versions; how a price comes about is in `providers.machines.engine_cost`.
What a measurement asks for is *wanted*; the price in force follows it by at most a tenth an hour,
and the rest waits for an operator as a proposal. A price that an operator made by hand stands until
it is withdrawn.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypedDict

from billing import fault_isolation
from billing.kinds import ServiceTier
from billing.prices import list_prices as price_queries
from billing.prices import proposals as price_proposals
from billing.prices import versions as prices
from billing.prices.imports import DatedRates
from billing.prices.list_prices import ListPrice
from billing.rates import Rates
from providers.machines.engine_cost import (
    InHousePrice,
    bounded,
    cached_price,
    calibrated_work,
    cost_of,
    stepped,
    work_since,
)
from providers.models import Offer, Provider, Worker

PUBLISH_EVERY = timedelta(minutes=5)
CHANGE_LEAST = Decimal("0.02")
# How far a price may be from what it was an hour ago, unless a person said otherwise.
STEP_SPAN: Final = timedelta(hours=1)
STEP_PERCENT: Final = 10
# With fewer tokens since the last price, what was measured is noise.
OUTPUT_TOKENS_LEAST = 2_000
INPUT_TOKENS_LEAST = 2_000

FAMILY: Final = "in-house"
CALIBRATION: Final = f"{FAMILY} calibration"
MEASURED: Final = f"{FAMILY} measurement"
RECORDED_BY: Final = "in-house pricing"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a price should be by the latest figures of its engine, and by which."""

    input_pico: int
    output_pico: int
    source: str
    why: str

    @property
    def price(self) -> InHousePrice:
        return InHousePrice(self.input_pico, cached_price(self.input_pico), self.output_pico)


class Paid(TypedDict):
    """A price as versions are made of it: what is not read from a cache costs the same."""

    input_pico: int
    cache_read_pico: int
    cache_write_5m_pico: int
    cache_write_1h_pico: int
    output_pico: int
    reasoning_pico: int


def publish_calibrated(*, worker: Worker, now: datetime) -> InHousePrice:
    """What the calibration asks for: at once where the offer has no price, else in steps."""
    wanted = _as_calibrated(worker)
    worker.wanted_price = asdict(wanted)
    worker.save(update_fields=["wanted_price"])
    _follow(worker, now)
    return wanted.price


def publish_all(*, now: datetime) -> int:
    """Bring every in-house price nearer to what its engine's figures say; returns how many moved.

    What is held back stands as a proposal, which an operator may approve at once.
    """
    workers = list(
        Worker.objects.select_related("offer").filter(
            offer__state__in=(Offer.State.LIVE, Offer.State.DEMOTED)
        )
    )
    with fault_isolation.told_at_the_end():
        moved = fault_isolation.each(
            workers, lambda worker: _renew(worker, now), name=lambda w: w.offer.sku
        )
        _propose_rest(workers, now)
    return sum(moved)


def _renew(worker: Worker, now: datetime) -> bool:
    _measure(worker, now)
    return _follow(worker, now)


def _calibrated(worker: Worker) -> InHousePrice:
    return cost_of(calibrated_work(worker.calibration), usd_per_hour_pico=worker.usd_per_hour_pico)


def _as_calibrated(worker: Worker) -> Wanted:
    price, usd = _calibrated(worker), Decimal(worker.usd_per_hour_pico).scaleb(-12)
    why = f"calibrated at ${usd.normalize():f} an hour"
    return Wanted(price.input_pico, price.output_pico, CALIBRATION, why)


def _wanted(worker: Worker) -> Wanted | None:
    return Wanted(**worker.wanted_price) if worker.wanted_price else None


def _current(offer: Offer, now: datetime) -> ListPrice | None:
    return price_queries.in_force(now, [offer.sku]).get(offer.sku)


def _measure(worker: Worker, now: datetime) -> None:
    """Note what the engine did since it was last looked at asks for, where that is enough."""
    if worker.priced_at is not None and now - worker.priced_at < PUBLISH_EVERY:
        return
    work = work_since(worker.totals, worker.priced_totals)
    if work.output_tokens < OUTPUT_TOKENS_LEAST or work.weighted_input_tokens < INPUT_TOKENS_LEAST:
        return
    live = cost_of(work, usd_per_hour_pico=worker.usd_per_hour_pico)
    price = bounded(
        live, calibrated=_calibrated(worker), outside=_cheapest_outside(worker.offer, now)
    )
    why = f"measured over {work.output_tokens:,} output tokens"
    worker.wanted_price = asdict(Wanted(price.input_pico, price.output_pico, MEASURED, why))
    worker.priced_totals, worker.priced_at = worker.totals, now
    worker.save(update_fields=["wanted_price", "priced_totals", "priced_at"])


def _follow(worker: Worker, now: datetime) -> bool:
    """Publish the next step towards what is wanted; True where one was due."""
    wanted, current = _wanted(worker), _current(worker.offer, now)
    if current is None:
        # The first, or withdrawn by the operator who had made it: without a price nothing is
        # ever measured.
        wanted = wanted or _as_calibrated(worker)
        _publish(worker.offer, wanted.price, wanted, held="", now=now)
        return True
    if wanted is None or current.source == prices.OPERATOR:
        return False
    step = stepped(wanted.price, _reference(current, now), percent=STEP_PERCENT)
    if not _moved(step, current):
        return False
    held = "" if step == wanted.price else f", at most {STEP_PERCENT} % an hour"
    _publish(worker.offer, step, wanted, held=held, now=now)
    return True


def _reference(current: ListPrice, now: datetime) -> InHousePrice:
    """The price that steps are counted from: an hour ago's, or what a person decided since."""
    since = now - STEP_SPAN
    lasting = price_queries.history(since, [current.sku]).get(current.sku, [current])
    decided = [price for price in lasting if price.recorded_by != RECORDED_BY]
    recent = [price for price in decided if price.since > since]
    chosen = recent[-1] if recent else lasting[0]
    return InHousePrice(chosen.input_pico, chosen.cache_read_pico, chosen.output_pico)


def _cheapest_outside(offer: Offer, now: datetime) -> InHousePrice | None:
    """The external offer of the same model with the lowest output price, free ones left out."""
    skus = Offer.objects.filter(
        provider__kind=Provider.Kind.EXTERNAL, model=offer.model_id
    ).values_list("sku", flat=True)
    listed = [p for p in price_queries.in_force(now, list(skus)).values() if p.output_pico]
    if not listed:
        return None
    best = min(listed, key=lambda price: price.output_pico)
    return InHousePrice(best.input_pico, best.cache_read_pico, best.output_pico)


def _moved(price: InHousePrice, current: ListPrice) -> bool:
    return any(
        abs(new - old) > CHANGE_LEAST * old
        for new, old in (
            (price.input_pico, current.input_pico),
            (price.output_pico, current.output_pico),
        )
    )


def _propose_rest(workers: Iterable[Worker], now: datetime) -> None:
    """What the prices in force are still held back from, for an operator to decide."""
    history = {}
    for worker in workers:
        wanted, current = _wanted(worker), _current(worker.offer, now)
        if wanted is None or current is None or current.source == prices.OPERATOR:
            continue
        if _moved(wanted.price, current):
            rates = Rates(**_rates(wanted.price))
            history[worker.offer.sku] = [DatedRates(ServiceTier.DEFAULT, 0, now, None, rates)]
    price_proposals.propose(history, source=MEASURED, now=now)


def _rates(price: InHousePrice) -> Paid:
    return {
        "input_pico": price.input_pico,
        "cache_read_pico": price.cached_pico,
        "cache_write_5m_pico": price.input_pico,
        "cache_write_1h_pico": price.input_pico,
        "output_pico": price.output_pico,
        "reasoning_pico": price.output_pico,
    }


def _publish(
    offer: Offer, price: InHousePrice, wanted: Wanted, *, held: str, now: datetime
) -> None:
    prices.publish(
        sku_code=offer.sku,
        **_rates(price),
        valid_from=now,
        source=wanted.source,
        note=f"{wanted.why}{held}",
        recorded_by=RECORDED_BY,
    )
