"""Publishes the prices of our own machines: once from calibration, then from what they really did.

Tenants pay only published versions; how a price comes about is in `providers.engine_cost`. A
price that an operator made by hand stands until it is withdrawn.
"""

from datetime import datetime, timedelta
from decimal import Decimal

from billing import apart, price_queries, prices
from billing.price_queries import ListPrice
from providers.engine_cost import (
    InHousePrice,
    bounded,
    calibrated_work,
    cost_of,
    work_since,
)
from providers.models import Offer, Provider, Worker
from providers.snapshot_signal import bump

PUBLISH_EVERY = timedelta(minutes=5)
CHANGE_LEAST = Decimal("0.02")
# With fewer tokens since the last price, what was measured is noise.
OUTPUT_TOKENS_LEAST = 2_000
INPUT_TOKENS_LEAST = 2_000

CALIBRATION = "calibration"
MEASURED = "in-house measurement"


def publish_calibrated(*, worker: Worker, now: datetime) -> InHousePrice:
    """The first price, from the calibration: an offer must be routable at once."""
    price = cost_of(calibrated_work(worker.calibration), usd_per_hour_pico=worker.usd_per_hour_pico)
    current = _current(worker.offer, now)
    if current is None or current.source != prices.OPERATOR:
        _publish(worker.offer, price, source=CALIBRATION, now=now)
    return price


def publish_all(*, now: datetime) -> int:
    """Publish every in-house price that moved by more than 2 %; returns how many did."""
    workers = Worker.objects.select_related("offer").filter(
        offer__state__in=(Offer.State.LIVE, Offer.State.DEMOTED)
    )
    moved = apart.each(
        workers, lambda worker: _publish_if_moved(worker, now), name=lambda w: w.offer.sku
    )
    return sum(moved)


def _current(offer: Offer, now: datetime) -> ListPrice | None:
    return price_queries.in_force(now, [offer.sku]).get(offer.sku)


def _publish_if_moved(worker: Worker, now: datetime) -> bool:
    current = _current(worker.offer, now)
    if current is None:
        # Withdrawn by the operator who had made it: without a price nothing is ever measured.
        publish_calibrated(worker=worker, now=now)
        return True
    if current.source == prices.OPERATOR:
        return False
    if worker.priced_at is not None and now - worker.priced_at < PUBLISH_EVERY:
        return False
    work = work_since(worker.totals, worker.priced_totals)
    if work.output_tokens < OUTPUT_TOKENS_LEAST or work.weighted_input_tokens < INPUT_TOKENS_LEAST:
        return False
    calibrated = cost_of(
        calibrated_work(worker.calibration), usd_per_hour_pico=worker.usd_per_hour_pico
    )
    live = cost_of(work, usd_per_hour_pico=worker.usd_per_hour_pico)
    price = bounded(live, calibrated=calibrated, outside=_cheapest_outside(worker.offer, now))
    worker.priced_totals, worker.priced_at = worker.totals, now
    worker.save(update_fields=["priced_totals", "priced_at"])
    if not _moved(price, current):
        return False
    _publish(worker.offer, price, source=MEASURED, now=now)
    return True


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


def _publish(offer: Offer, price: InHousePrice, *, source: str, now: datetime) -> None:
    prices.publish(
        sku_code=offer.sku,
        input_pico=price.input_pico,
        cache_read_pico=price.cached_pico,
        cache_write_5m_pico=price.input_pico,
        cache_write_1h_pico=price.input_pico,
        output_pico=price.output_pico,
        reasoning_pico=price.output_pico,
        valid_from=now,
        source=source,
        recorded_by="in-house pricing",
    )
    bump()
