"""One change that a declarative file makes, and one application of a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One application of a file: who does it, when, and the secrets that came of it."""

    actor: str
    now: datetime
    secrets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """`before` is empty for what is made."""

    subject: str
    before: str
    after: str
    make: Callable[[Run], None]

    def __str__(self) -> str:
        sign = "~" if self.before else "+"
        was = f"{self.before} -> " if self.before else ""
        return f"{sign} {self.subject}: {was}{self.after}"
