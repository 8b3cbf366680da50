"""Records what an invariant check found, for people to see."""

from datetime import datetime

from billing.models import InvariantCheck


def report(name: str, holds: bool, detail: str, now: datetime) -> None:
    """The latest result under this name."""
    InvariantCheck.objects.update_or_create(
        name=name, defaults={"holds": holds, "detail": detail[:400], "checked_at": now}
    )
