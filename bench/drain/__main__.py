"""How many usage events per second one drain process posts, from Redis to the ledger.

`python -m bench.drain [events] [tenants]`: starts a throw-away PostgreSQL (without fsync, as in
the tests) and Redis, settles that many requests, then times the drain alone and checks every
invariant. CPU seconds are of the drain process; the servers have the other cores.
"""

import sys
import time
from datetime import UTC, datetime

import redis

from tests import services

EVENTS = 20_000
TENANTS = 20


def main(events: int, tenants: int) -> None:
    servers = services.SESSION
    servers.start()
    try:
        services._point_django_at(servers)
        measure(servers.redis.url, events, tenants)
    finally:
        servers.stop()


def measure(redis_url: str, events: int, tenants: int) -> None:
    # Django is ready only now.
    from bench.drain import stage  # noqa: PLC0415

    with redis.Redis.from_url(redis_url) as client:
        stage.prepare(client, events=events, tenants=tenants)
        began, began_cpu = time.perf_counter(), time.process_time()
        drained = stage.drain(client, now=datetime.now(UTC))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        print(  # noqa: T201
            f"{drained.posted} events of {tenants} tenants in {wall_s:.2f} s:"
            f" {drained.posted / wall_s:,.0f}/s, {cpu_s / drained.posted * 1e6:.0f} us CPU each;"
            f" quarantined {drained.quarantined}; invariants hold: {stage.check(client)}"
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3] or (EVENTS, TENANTS)))
