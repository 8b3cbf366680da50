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
from pathlib import Path
from types import ModuleType
from typing import Final

from bench.drain import figures
from tests import services

EVENTS: Final = 10_000_000


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


if __name__ == "__main__":
    main()
