"""A drain in a process of its own, which dies without a word where it is told to.

`python -m tests.billing.drainer DATABASE [POINT]`: drains until it is killed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import django
from django.conf import settings

# Where a drain can die: the module and function, and whether before it or after it.
POINTS = {
    "read": ("usage_stream", "read", "after"),
    "packed": ("usage_rows", "pack", "after"),
    "written": ("usage_rows", "write", "after"),
    "posted": ("ledger", "post_all", "after"),
    "committed": ("metering", "acknowledge", "before"),
    "half acknowledged": ("acknowledgement", "run", "after"),
    "acknowledged": ("metering", "acknowledge", "after"),
    "trimmed": ("metering", "trim", "after"),
}


def dying(act: Callable[..., Any], when: str) -> Callable[..., Any]:
    def wrapped(*args: Any, **named: Any) -> None:
        if when == "after":
            act(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return wrapped


def main(database: str, point: str = "") -> None:
    settings.DATABASES["default"]["NAME"] = database
    django.setup()
    # Django is ready only now.
    from billing.books import ledger  # noqa: PLC0415
    from billing.drain import acknowledgement, metering, usage_rows  # noqa: PLC0415
    from billing.holding import usage_stream  # noqa: PLC0415
    from billing.redis.connection import connection  # noqa: PLC0415

    acknowledgement.CHUNK = 2  # type: ignore[misc]
    modules = (acknowledgement, ledger, metering, usage_rows, usage_stream)
    if point:
        place, name, when = POINTS[point]
        (module,) = (m for m in modules if m.__name__.endswith(f".{place}"))
        setattr(module, name, dying(getattr(module, name), when))
    while True:
        metering.drain_all(connection(), now=datetime.now(UTC))
        time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
