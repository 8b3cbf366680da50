"""The kinds of things that tables, forms, the public API, files and the data plane all name. Pure.

Each list stands here once. A table takes its choices from it, a form and the API's description
theirs, a declared file the words that it may say: one more member is one more line.
"""

from enum import IntEnum, StrEnum


class Listed(StrEnum):
    """Words of which a field, a form or a file takes one."""

    @property
    def label(self) -> str:
        """As a person reads it."""
        return self.name.replace("_", " ").title()

    @classmethod
    def choices(cls) -> list[tuple[str, str]]:
        """For Django's fields."""
        return [(member.value, member.label) for member in cls]

    @classmethod
    def values(cls) -> list[str]:
        return [member.value for member in cls]


class HoldMode(Listed):
    """What a request sets aside: the most it can cost, or the p99 of the key's own past."""

    STRICT = "strict"
    EXPECTED = "expected"


class Window(Listed):
    """The spans of time that a spend cap counts in; a session's is the session itself."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    LIFETIME = "lifetime"
    SESSION = "session"

    @property
    def span(self) -> str:
        """As a form asks for it."""
        return "in all" if self is Window.LIFETIME else f"per {self.value}"


class ServiceTier(IntEnum):
    """How fast a request is served, as the numbers that prices are kept under."""

    DEFAULT = 0
    FLEX = 1
    PRIORITY = 2
    BATCH = 3

    @property
    def word(self) -> str:
        """As requests and answers call it."""
        return self.name.lower()

    @classmethod
    def choices(cls) -> list[tuple[int, str]]:
        """For Django's fields."""
        return [(member.value, member.name.title()) for member in cls]
