"""The spans of the overview: today, this week, this month, and as much time before. Pure, UTC."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

SPANS: Final = ("day", "week", "month")
DEFAULT_SPAN: Final = "month"


@dataclass(frozen=True, slots=True)
class Period:
    """`since` up to `until`, which is now; the comparison covers as much time as has passed."""

    span: str
    label: str
    before_label: str
    since: datetime
    until: datetime
    ends: datetime
    before_since: datetime
    before_until: datetime

    @property
    def chart_days(self) -> list[date]:
        """A single day is drawn beside the six before it."""
        first = self.since.date() - timedelta(days=6 if self.span == "day" else 0)
        return [first + timedelta(days=n) for n in range((self.ends.date() - first).days)]


def period_of(span: str, now: datetime) -> Period:
    """The span of that name that contains `now`; the month for any other name."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if span == "day":
        return _period("day", "Today", "yesterday", midnight, midnight + timedelta(days=1), now)
    if span == "week":
        monday = midnight - timedelta(days=midnight.weekday())
        return _period("week", "This week", "last week", monday, monday + timedelta(days=7), now)
    first = midnight.replace(day=1)
    next_first = (first + timedelta(days=32)).replace(day=1)
    before_first = (first - timedelta(days=1)).replace(day=1)
    return Period(
        span="month",
        label=f"{first:%B}",
        before_label=f"{before_first:%B}",
        since=first,
        until=now,
        ends=next_first,
        before_since=before_first,
        before_until=min(before_first + (now - first), first),
    )


def _period(
    span: str, label: str, before_label: str, since: datetime, ends: datetime, now: datetime
) -> Period:
    length = ends - since
    return Period(
        span=span,
        label=label,
        before_label=before_label,
        since=since,
        until=now,
        ends=ends,
        before_since=since - length,
        before_until=now - length,
    )
