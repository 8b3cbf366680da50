"""Rates of a price and the hours in which they hold: what they may be, and how they change. Pure.

Rates are integer pico-dollars per token; docs/pricing.md says what they mean.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from billing.errors import PriceRefused
from billing.money import PICO_PER_TOKEN_PER_USD_PER_MILLION

# $100,000 per million tokens: beyond any market, well within what a unit mix-up produces.
RATE_PICO_MAX: Final = 100_000 * PICO_PER_TOKEN_PER_USD_PER_MILLION
REQUEST_PICO_MAX: Final = 100 * 10**12
MINUTES_PER_DAY: Final = 24 * 60
PPM: Final = 1_000_000
PPM_PER_PERCENT: Final = PPM // 100
# From free to eleven times the price.
CHANGE_PPM_MIN: Final = -PPM
CHANGE_PPM_MAX: Final = 10 * PPM


class Window(NamedTuple):
    """Minutes of the UTC day, from the first to before the last; past midnight where it ends
    before it begins. The default stands for all day, and gives way to any other window."""

    from_minute: int = 0
    to_minute: int = 0

    @property
    def is_all_day(self) -> bool:
        return self.from_minute == self.to_minute

    def contains(self, minute: int) -> bool:
        if self.from_minute < self.to_minute:
            return self.from_minute <= minute < self.to_minute
        return minute >= self.from_minute or minute < self.to_minute

    def overlaps(self, other: "Window") -> bool:
        """Whether both hold at some minute; all day overlaps with nothing but itself."""
        if self.is_all_day or other.is_all_day:
            return self == other
        return self.contains(other.from_minute) or other.contains(self.from_minute)

    def check(self) -> None:
        """PriceRefused where this is no window."""
        for minute in self:
            if type(minute) is not int or not 0 <= minute < MINUTES_PER_DAY:
                raise PriceRefused(f"not a minute of the day: {minute!r}")
        if self.is_all_day and self != ALL_DAY:
            raise PriceRefused("a window of hours begins and ends at different minutes")

    def __str__(self) -> str:
        if self.is_all_day:
            return "all day"
        return f"{_clock(self.from_minute)}-{_clock(self.to_minute)} UTC"


ALL_DAY: Final = Window()


def percent_text(change_ppm: int) -> str:
    """-200,000 parts per million as "-20 %"."""
    return f"{Decimal(change_ppm).scaleb(-4).normalize():+f} %"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-dollars per token; None where a unit is not sold."""

    input_pico: int
    cache_read_pico: int
    cache_write_5m_pico: int
    cache_write_1h_pico: int
    output_pico: int
    reasoning_pico: int
    input_audio_pico: int | None = None
    input_image_pico: int | None = None
    output_audio_pico: int | None = None
    request_pico: int = 0

    def items(self) -> list[tuple[str, int | None]]:
        return [(name, getattr(self, name)) for name in self.__slots__]

    @property
    def all_zero(self) -> bool:
        return not any(value for _, value in self.items())

    def check(self) -> None:
        """PriceRefused where a rate is no whole number within bounds."""
        for name, value in self.items():
            if value is None and name in OPTIONAL:
                continue
            if type(value) is not int:
                raise PriceRefused(f"{name} is not a whole number of pico-dollars: {value!r}")
            limit = REQUEST_PICO_MAX if name == "request_pico" else RATE_PICO_MAX
            if not 0 <= value <= limit:
                raise PriceRefused(f"{name} is out of bounds: {value}")

    def changed(self, change_ppm: int) -> "Rates":
        """Every rate times (1 + change), rounded half up to a whole pico-dollar.

        Quantised here, once, so that what is quoted and what is billed agree. Only a change of
        -100 % makes a rate free: others leave a paid rate at one pico-dollar at least.
        """
        if not CHANGE_PPM_MIN <= change_ppm <= CHANGE_PPM_MAX:
            raise PriceRefused(f"not a change of a price: {change_ppm} parts per million")
        made = {name: _changed(value, change_ppm) for name, value in self.items()}
        return Rates(**made)  # type: ignore[arg-type]


OPTIONAL: Final = frozenset({"input_audio_pico", "input_image_pico", "output_audio_pico"})


def _changed(rate_pico: int | None, change_ppm: int) -> int | None:
    if not rate_pico or change_ppm == -PPM:
        return rate_pico and 0
    return max(1, (2 * rate_pico * (PPM + change_ppm) + PPM) // (2 * PPM))
