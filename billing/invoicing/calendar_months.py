"""Calendar months in a tenant's own time zone, as moments in UTC. Pure."""

from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Period(NamedTuple):
    """Half open: a charge at `end` belongs to the next period."""

    start: datetime
    end: datetime

    @property
    def middle(self) -> datetime:
        """A moment that no change of time zone, of 26 hours at most, moves into another month."""
        return self.start + timedelta(days=15)


def month(year: int, number: int, time_zone: str) -> Period:
    """A calendar month: 743 to 745 hours long where clocks change in it."""
    zone = ZoneInfo(time_zone)
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return Period(
        datetime(year, number, 1, tzinfo=zone).astimezone(ZoneInfo("UTC")),
        datetime(*following, 1, tzinfo=zone).astimezone(ZoneInfo("UTC")),
    )


def this_month(now: datetime, time_zone: str) -> Period:
    """The month that `now` is in, on the tenant's calendar."""
    local = now.astimezone(ZoneInfo(time_zone))
    return month(local.year, local.month, time_zone)


def last_month(now: datetime, time_zone: str) -> Period:
    """The month before the one that `now` is in, on the tenant's calendar."""
    local = now.astimezone(ZoneInfo(time_zone))
    before = (local.year - 1, 12) if local.month == 1 else (local.year, local.month - 1)
    return month(*before, time_zone)
