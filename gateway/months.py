"""Calendar months of UTC, as statements and chargebacks name them: 2026-03. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta


class NoSuchMonth(ValueError):
    """A month is written as 2026-03."""


@dataclass(frozen=True, slots=True)
class Month:
    first: date

    @property
    def following(self) -> "Month":
        return Month((self.first + timedelta(days=32)).replace(day=1))

    @property
    def before(self) -> "Month":
        return Month((self.first - timedelta(days=1)).replace(day=1))

    @property
    def begins_at(self) -> datetime:
        return datetime.combine(self.first, time.min, UTC)

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}"


def named(text: str, *, now: datetime) -> Month:
    """The month of that name, or the one of `now` for no name. Raises NoSuchMonth."""
    if not text:
        return Month(now.astimezone(UTC).date().replace(day=1))
    year, _, month = text.partition("-")
    if text.isascii() and len(text) == 7 and year.isdigit() and month.isdigit():
        if int(year) >= 2000 and 1 <= int(month) <= 12:
            return Month(date(int(year), int(month), 1))
    raise NoSuchMonth("a month is written as 2026-03")
