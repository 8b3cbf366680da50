"""What reading costs after many events: the month view, the checks, an index made under load.

`python -m bench.drain.history [events] [--figures FILE.csv]`: fills a throw-away PostgreSQL by SQL
with a month of events of 100 tenants, posted as the drain posts them, in steps. After each step it
times the overview page of the busiest tenant, the continuous check (of a step's rows, and of a
quarter of an hour's), the audit that seals the step and the one after, and what one more batch
costs with its rollups. At the end it makes an index while another process goes on writing, and
audits every row. With `--figures`, each step is a
line of that file, and its curves are drawn beside it as SVG.
"""

import argparse
import importlib
import logging
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import django

from bench.drain import figures
from tests import services

EVENTS: Final = 10_000_000
WRITES_PER_S: Final = 5
# Enough for every tenant to have some: a transfer of nothing is refused.
WRITTEN_AT_ONCE: Final = 400


@dataclass(frozen=True, slots=True)
class House:
    """Who buys what, at which price versions; the first tenant is the busiest."""

    tenants: tuple[int, ...]
    skus: tuple[str, ...]
    versions: tuple[int, ...]
    username: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.drain.history")
    parser.add_argument("events", type=int, nargs="?", default=EVENTS)
    parser.add_argument("--figures", type=Path)
    asked = parser.parse_args()
    # Ended from outside, the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    servers = services.Services(durable=True)
    servers.start()
    try:
        services.point_django_at(servers)
        logging.disable(logging.INFO)
        past().measure(servers.redis.url, asked.events, asked.figures)
    finally:
        servers.stop()
    if asked.figures:
        figures.draw_history(asked.figures)


def past() -> ModuleType:
    """Needs Django, which is ready only once the servers are."""
    return importlib.import_module("bench.drain.past")


def keep_writing(house: House, stop: Any, worst: Any) -> None:
    """Post small batches at a steady pace, in a process of its own; keep the longest write."""
    django.setup()
    write = past().write
    number = int(time.time() * 1000)
    while not stop.is_set():
        began = time.perf_counter()
        write(
            house,
            house.tenants,
            first=number,
            count=WRITTEN_AT_ONCE,
            began=datetime.now(UTC),
            per_event=timedelta(0),
        )
        took_s = time.perf_counter() - began
        worst.value = max(worst.value, took_s)
        number += WRITTEN_AT_ONCE
        time.sleep(max(1 / WRITES_PER_S - took_s, 0))


if __name__ == "__main__":
    main()
