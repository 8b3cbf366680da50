"""What a million tokens of our own machines costs, from $/hour and engine time. Pure.

Input carries the share of engine time spent computing input, output the rest; the two sum to the
hour's cost when the engine is saturated. A cached input token takes memory but hardly any time
and weighs a tenth of a computed one. Rounding is up: never below cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

SECONDS_PER_HOUR = 3600
CACHED_WEIGHT = Decimal("0.1")
# Depreciation and power of an idle engine are unknown, so half the calibrated cost is the floor.
FLOOR_SHARE = Decimal("0.5")
# Without an equivalent outside, a badly used machine charges at most this multiple of its cost.
CEILING_MULTIPLE = Decimal(4)


class CalibrationRefused(ValueError):
    """A calibration that cannot be turned into a price."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine did in some span, and the engine time of both halves."""

    input_tokens_uncached: int
    input_tokens_cached: int
    output_tokens: int
    input_seconds: Decimal
    output_seconds: Decimal

    @property
    def weighted_input_tokens(self) -> Decimal:
        return self.input_tokens_uncached + CACHED_WEIGHT * self.input_tokens_cached


@dataclass(frozen=True, slots=True)
class InHousePrice:
    """Pico-dollars per token."""

    input_pico: int
    cached_pico: int
    output_pico: int


def cost_of(work: Work, *, usd_per_hour_pico: int) -> InHousePrice:
    """The price at which this work pays for exactly the engine time it took, rounded up."""
    pico_per_second = Decimal(usd_per_hour_pico) / SECONDS_PER_HOUR
    input_pico = _ceil(pico_per_second * work.input_seconds, work.weighted_input_tokens)
    return InHousePrice(
        input_pico=input_pico,
        cached_pico=cached_price(input_pico),
        output_pico=_ceil(pico_per_second * work.output_seconds, Decimal(work.output_tokens)),
    )


def cached_price(input_pico: int) -> int:
    return _ceil(input_pico * CACHED_WEIGHT, Decimal(1))


def _ceil(pico: Decimal, tokens: Decimal) -> int:
    if tokens <= 0:
        return 0
    return max(1, int((pico / tokens).to_integral_value(rounding=ROUND_CEILING)))


def calibrated_work(calibration: Mapping[str, object]) -> Work:
    """One saturated hour by a worker's calibration, which states tokens per second of engine time.

    CalibrationRefused where the figures make no sense.
    """
    share = _number(calibration, "input_time_share")
    if not 0 < share < 1:
        raise CalibrationRefused("input_time_share must lie between 0 and 1")
    input_seconds = SECONDS_PER_HOUR * share
    output_seconds = SECONDS_PER_HOUR - input_seconds
    work = Work(
        input_tokens_uncached=int(_number(calibration, "input_tokens_per_s") * input_seconds),
        input_tokens_cached=0,
        output_tokens=int(_number(calibration, "output_tokens_per_s") * output_seconds),
        input_seconds=input_seconds,
        output_seconds=output_seconds,
    )
    if not work.input_tokens_uncached or not work.output_tokens:
        raise CalibrationRefused("the calibration saw no tokens")
    return work


def _number(calibration: Mapping[str, object], name: str) -> Decimal:
    value = calibration.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise CalibrationRefused(f"calibration.{name} is missing or not a number")
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise CalibrationRefused(f"calibration.{name} is not a number") from None
    if not number.is_finite() or not 0 <= number <= 10**9:
        raise CalibrationRefused(f"calibration.{name} is out of range")
    return number


def work_since(now: Mapping[str, object], before: Mapping[str, object]) -> Work:
    """What the engine did between two sets of totals; a restarted engine counts from zero."""
    restarted = _total(now, "uptime_s") < _total(before, "uptime_s")

    def since(name: str) -> Decimal:
        return _total(now, name) - (0 if restarted else _total(before, name))

    return Work(
        input_tokens_uncached=int(since("input_tokens_uncached")),
        input_tokens_cached=int(since("input_tokens_cached")),
        output_tokens=int(since("output_tokens")),
        input_seconds=since("input_seconds"),
        output_seconds=since("output_seconds"),
    )


def _total(totals: Mapping[str, object], name: str) -> Decimal:
    return Decimal(str(totals.get(name, 0)))


def bounded(
    live: InHousePrice, *, calibrated: InHousePrice, outside: InHousePrice | None
) -> InHousePrice:
    """The live price between its floor and its ceiling; the floor wins where they cross."""
    input_pico = _within(
        live.input_pico, calibrated.input_pico, outside.input_pico if outside else None
    )
    output_pico = _within(
        live.output_pico, calibrated.output_pico, outside.output_pico if outside else None
    )
    return InHousePrice(input_pico, cached_price(input_pico), output_pico)


def stepped(wanted: InHousePrice, reference: InHousePrice, *, percent: int) -> InHousePrice:
    """The wanted price, as near to it as `percent` of the reference allow."""
    input_pico = _near(wanted.input_pico, reference.input_pico, percent)
    output_pico = _near(wanted.output_pico, reference.output_pico, percent)
    return InHousePrice(input_pico, cached_price(input_pico), output_pico)


def _near(pico: int, reference_pico: int, percent: int) -> int:
    """At least a pico-dollar each way: a tenth of the least prices would be nothing."""
    reach = max(1, reference_pico * percent // 100)
    return max(reference_pico - reach, 1, min(pico, reference_pico + reach))


def _within(pico: int, calibrated_pico: int, outside_pico: int | None) -> int:
    floor = _ceil(calibrated_pico * FLOOR_SHARE, Decimal(1))
    ceiling = int(calibrated_pico * CEILING_MULTIPLE) if outside_pico is None else outside_pico
    return max(floor, min(pico, ceiling))
