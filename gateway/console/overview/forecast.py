"""What a month will have cost at its end, from its last full days. Pure, integer pico-dollars.

The spread covers about four months in five, if days go on scattering as they did. Fewer than
three full days say nothing, so there is no forecast then.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

DAYS_USED: Final = 7
DAYS_NEEDED: Final = 3
# 1.28 standard deviations to each side hold 80 % of a normal distribution.
SPREAD_NUMERATOR: Final = 128
SPREAD_DENOMINATOR: Final = 100


@dataclass(frozen=True, slots=True)
class Forecast:
    total_pico: int
    spread_pico: int
    per_day_pico: int


def month_end(by_day: Mapping[date, int], *, today: date, last_day: date) -> Forecast | None:
    """`by_day` holds the month's spend; days without any count once spending has begun."""
    spent_days = [day for day, pico in by_day.items() if pico and day < today]
    if not spent_days:
        return None
    begun = max(min(spent_days), today - timedelta(days=DAYS_USED))
    full = [begun + timedelta(days=n) for n in range((today - begun).days)]
    if len(full) < DAYS_NEEDED:
        return None
    spends = [by_day.get(day, 0) for day in full]
    mean = sum(spends) // len(spends)
    variance = sum((s - mean) ** 2 for s in spends) // (len(spends) - 1)
    days_left = (last_day - today).days
    spread = math.isqrt(variance * (days_left + 1)) * SPREAD_NUMERATOR // SPREAD_DENOMINATOR
    before_today = sum(pico for day, pico in by_day.items() if day < today)
    today_pico = max(by_day.get(today, 0), mean)
    return Forecast(
        total_pico=before_today + today_pico + mean * days_left,
        spread_pico=spread,
        per_day_pico=mean,
    )
