"""What every page, list, filter, search, document and API call costs over a long history.

`python -m bench.pages [part of an address …] [--data FOLDER] [--events 2000000] [--csv FILE]`
"""

import argparse
import importlib
import logging
import signal
import sys
from itertools import chain
from pathlib import Path
from tempfile import gettempdir
from typing import Final

import redis

from bench.drain.figures import say
from bench.pages import report
from tests import services

EVENTS: Final = 2_000_000
LIMIT_MS: Final = 150.0


def main() -> None:
    asked = _asked()
    # Ended from outside, the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    servers = services.Services(durable=True, kept=asked.data)
    servers.start()
    try:
        services.point_django_at(servers)
        logging.disable(logging.WARNING)
        measure(servers, asked)
    finally:
        servers.stop()


def measure(servers: services.Services, asked: argparse.Namespace) -> None:
    # They need Django, which is ready only now.
    house, walk = (importlib.import_module(f"bench.pages.{name}") for name in ("house", "walk"))
    with redis.Redis.from_url(servers.redis.url) as client:
        known = house.stand(servers.root, client, events=asked.events)
    pid_file = servers.postgres.places.postgres_data / "postmaster.pid"
    postgres = int(pid_file.read_text(encoding="ascii").split()[0])
    say(report.head(LIMIT_MS))
    kinds = {}
    for kind, costs in walk.costs(known, postgres, asked.parts, limit_ms=LIMIT_MS):
        kinds[kind] = costs
        say(report.line(kind, costs, limit_ms=LIMIT_MS))
        if asked.csv:
            report.keep(asked.csv, kinds)
    for line in chain(report.worst(kinds, over_ms=asked.over), report.failed(kinds)):
        say(line)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pages")
    parser.add_argument("parts", nargs="*", help="only addresses that hold one of these")
    parser.add_argument("--data", type=Path, default=Path(gettempdir()) / "tokenhouse-pages")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--over", type=float, default=LIMIT_MS, help="ms from which one is named")
    parser.add_argument("--csv", type=Path, help="where every cost is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
