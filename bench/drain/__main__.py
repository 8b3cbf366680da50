"""How many usage events per second one drain process posts, from Redis to the ledger.

`python -m bench.drain [events] [tenants]`: starts a throw-away PostgreSQL (durable, as in
production) and Redis, and again and again fills the streams from another process and times the
drain alone: its rate, its CPU per event and its memory. Ends with every invariant over everything.
"""

import logging
import multiprocessing
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import redis

from tests import services

EVENTS: Final = 400_000
TENANTS: Final = 100
# What is unread at once: Redis has to hold it.
ROUND: Final = 200_000


def main(events: int = EVENTS, tenants: int = TENANTS) -> None:
    servers = services.Services(durable=True)
    servers.start()
    try:
        services.point_django_at(servers)
        measure(servers.redis.url, events, tenants)
    finally:
        servers.stop()


def measure(redis_url: str, events: int, tenants: int) -> None:
    # Django is ready only now.
    logging.disable(logging.INFO)
    from django.db import connection  # noqa: PLC0415

    from bench.drain import stage, stream  # noqa: PLC0415
    from billing import invariants, metering  # noqa: PLC0415

    spawn = multiprocessing.get_context("spawn")
    with redis.Redis.from_url(redis_url) as client:
        market = stage.prepare(client, tenants=tenants)
        postgres = connection.connection.info.backend_pid
        done = 0
        while done < events:
            filling = {"events_wanted": min(ROUND, events - done), "seed": done}
            filling["now_ms"] = int(time.time() * 1000)
            filler = spawn.Process(target=stream.fill, args=(redis_url, market), kwargs=filling)
            filler.start()
            filler.join()
            began, before = time.perf_counter(), cpu_s(postgres)
            drained = metering.drain_all(client, now=datetime.now(UTC))
            wall_s, after = time.perf_counter() - began, cpu_s(postgres)
            done += drained.read
            say(
                f"{done:>10,} {drained.posted / wall_s:>8,.0f}/s"
                f" {used_us(before[0], after[0], drained.read)} us CPU,"
                f" PostgreSQL {used_us(before[1], after[1], drained.read)} {memory_mib():>5.0f} MiB"
                f" quarantined {drained.quarantined}, unreadable {drained.unreadable}"
            )
        began = time.perf_counter()
        kept = invariants.audit(client, now=datetime.now(UTC))
        say(f"invariants hold: {kept}, checked in {time.perf_counter() - began:.1f} s")


def cpu_s(backend: int) -> tuple[float, float]:
    """CPU seconds of this process and of the server process that works for it."""
    fields = Path(f"/proc/{backend}/stat").read_text().rpartition(") ")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return time.process_time(), ticks / os.sysconf("SC_CLK_TCK")


def used_us(before_s: float, after_s: float, events: int) -> str:
    return f"{(after_s - before_s) / events * 1e6:>5.1f}"


def memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
