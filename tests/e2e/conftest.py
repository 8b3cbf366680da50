"""Two installations for all stories that leave them as they found them; the rest start their own.

`stack` sells two in-house workers; `house` sells an attached server that does as it is told.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.house import FOX, House
from tests.e2e.stack import Stack
from tests.fakes.pool import selling

BODY_BYTES_MAX = 3_000_000
WRITE_STALL_MS = 1_500


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    running = Stack()
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    upstream = selling(FOX, "fox-gated", "fox-greedy", "fox-flood", "fox-tools")
    running = Stack(
        TOKENHOUSE_WORKERS="0",
        TOKENHOUSE_DATAPLANE_PROCESSES="2",
        TOKENHOUSE_BODY_BYTES_MAX=str(BODY_BYTES_MAX),
        TOKENHOUSE_WRITE_STALL_MS=str(WRITE_STALL_MS),
    )
    upstream.start()
    try:
        opened = House(running, upstream)
        opened.open()
        yield opened
    finally:
        running.close()
        upstream.stop()
