"""How many usage events per second one drain process posts, from Redis to the ledger.

`python -m bench.drain [events] [tenants] [--figures FILE.csv]`: starts a throw-away PostgreSQL
(durable, as in production) and Redis, and again and again fills the streams from other processes
and times the drain alone: its rate, its CPU per event and its memory; then the boards' refresh.
Ends with every invariant over everything. With `--figures`, each round is a line of that file, and
its curves are drawn beside it as SVG.
"""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import redis

from bench.drain import figures, stream
from bench.drain.figures import say
from bench.drain.stream import Market
from tests import services

EVENTS: Final = 400_000
TENANTS: Final = 100
# What is unread at once: Redis has to hold it.
ROUND: Final = 200_000
FILLERS: Final = 2


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds so far: on the wall, and CPU of this process, its PostgreSQL backend and Redis."""

    wall_s: float
    drain_s: float
    postgres_s: float
    redis_s: float


def main() -> None:
    asked = _asked()
    # Ended from outside, the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    servers = services.Services(durable=True)
    servers.start()
    spawn = multiprocessing.get_context("spawn")
    try:
        services.point_django_at(servers)
        with ProcessPoolExecutor(FILLERS, mp_context=spawn) as fillers:
            measure(fillers, servers.redis.url, asked.events, asked.tenants, asked.figures)
    finally:
        servers.stop()
    if asked.figures:
        figures.draw_drain(asked.figures)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.drain")
    parser.add_argument("events", type=int, nargs="?", default=EVENTS)
    parser.add_argument("tenants", type=int, nargs="?", default=TENANTS)
    parser.add_argument("--figures", type=Path)
    return parser.parse_args()


def measure(
    fillers: Executor, redis_url: str, events: int, tenants: int, kept: Path | None
) -> None:
    # Django is ready only now.
    logging.disable(logging.INFO)
    from django.db import connection  # noqa: PLC0415

    from bench.drain import stage  # noqa: PLC0415
    from billing.drain import metering  # noqa: PLC0415
    from billing.integrity import invariants  # noqa: PLC0415

    with redis.Redis.from_url(redis_url) as client, figures.written(kept) as write:
        market = stage.prepare(client, tenants=tenants)
        servers = connection.connection.info.backend_pid, client.info()["process_id"]
        done = 0
        while done < events:
            filled_s = fill(fillers, redis_url, market, min(ROUND, events - done), done)
            before = used(*servers)
            drained = metering.drain_all(client, now=datetime.now(UTC))
            round_ = _round(before, used(*servers), drained.read)
            round_ |= boards_refreshed(client, drained.read)
            done += drained.read
            write({"events": done, **round_})
            say(
                f"{done:>10,} {round_['per_s']:>8,.0f}/s {round_['drain_us']:>5.1f} us CPU,"
                f" PostgreSQL {round_['postgres_us']:.1f}, Redis {round_['redis_us']:.1f};"
                f" {round_['memory_mib']:.0f} MiB, filled in {filled_s:.1f} s; boards:"
                f" {round_['boards_us']:.1f} us an event, refreshed in {round_['refresh_s']:.2f} s;"
                f" quarantined {drained.quarantined}, unreadable {drained.unreadable}"
            )
        began = time.perf_counter()
        held = invariants.audit(client, now=datetime.now(UTC))
        say(f"invariants hold: {held}, checked in {time.perf_counter() - began:.1f} s")


def fill(fillers: Executor, redis_url: str, market: Market, events: int, seed: int) -> float:
    """Append this many events, and wait until that is done; returns the seconds it took."""
    began = time.perf_counter()
    shares = [events // FILLERS] * (FILLERS - 1)
    shares.append(events - sum(shares))
    filling = [
        fillers.submit(
            stream.fill,
            redis_url,
            market,
            events_wanted=share,
            now_ms=int(time.time() * 1000),
            seed=seed + place,
        )
        for place, share in enumerate(shares)
    ]
    for share_filled in filling:
        share_filled.result()
    return time.perf_counter() - began


def boards_refreshed(client: redis.Redis, events: int) -> dict[str, float]:
    """The streams' other reader: it takes up the same events, after which they are trimmed, and
    makes the boards anew that they change."""
    from providers.boards import leaderboards, measurements  # noqa: PLC0415

    began, now = time.perf_counter(), datetime.now(UTC)
    while measurements.record(now=now):
        pass
    taken_up = time.perf_counter()
    leaderboards.refresh(now=now)
    return {
        "boards_us": (taken_up - began) / events * 1e6,
        "refresh_s": time.perf_counter() - taken_up,
    }


def used(postgres: int, redis_server: int) -> Used:
    return Used(time.perf_counter(), time.process_time(), cpu_s(postgres), cpu_s(redis_server))


def cpu_s(process: int) -> float:
    """CPU seconds of another process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _round(before: Used, after: Used, events: int) -> dict[str, float]:
    return {
        "per_s": events / (after.wall_s - before.wall_s),
        "drain_us": (after.drain_s - before.drain_s) / events * 1e6,
        "postgres_us": (after.postgres_s - before.postgres_s) / events * 1e6,
        "redis_us": (after.redis_s - before.redis_s) / events * 1e6,
        "memory_mib": memory_mib(),
    }


def memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
