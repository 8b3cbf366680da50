"""What one address costs: asked through the whole console in this process, as often as it takes.

Wall time counts what a person waits for and what else the machine does; CPU time, of this process
and of PostgreSQL's, is of the request alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from django.db import connection
from django.test import Client

MILLI: Final = 1e3
# An address that is far from the limit is asked once again, another until its best is known.
SURE: Final = 2
UNSURE: Final = 6
FAR: Final = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """The median of the wall times after the first, and the least CPU. `first_ms` is the first
    time, nothing being warm; of a stream, all times are until its first part."""

    address: str
    status: int
    wall_ms: float
    cpu_ms: float
    postgres_ms: float
    sql_ms: float
    first_ms: float
    statements: int
    size_kb: float

    @property
    def both_ms(self) -> float:
        return self.cpu_ms + self.postgres_ms


class Asker:
    def __init__(self, client: Client, postgres: int) -> None:
        self._client = client
        self._postgres = postgres

    def cost(self, address: str, *, limit_ms: float) -> Cost:
        tries = [self._ask(address)]
        while len(tries) < SURE or (
            len(tries) < UNSURE and min(t.both_ms for t in tries) > limit_ms * FAR
        ):
            tries.append(self._ask(address))
        best = min(tries, key=lambda t: t.both_ms)
        return Cost(
            address=address,
            status=best.status,
            wall_ms=median(t.wall_ms for t in tries[1:]),
            cpu_ms=best.cpu_ms,
            postgres_ms=best.postgres_ms,
            sql_ms=median(t.sql_ms for t in tries[1:]),
            first_ms=tries[0].wall_ms,
            statements=best.statements,
            size_kb=best.size_kb,
        )

    def _ask(self, address: str) -> Cost:
        with _statements() as said:
            servers, used, began = _backends_ms(self._postgres), time.process_time(), _now_ms()
            answer = self._client.get(address, headers={"accept-encoding": "gzip"})
            parts: Any = iter(answer) if answer.streaming else iter([answer.content])
            size = len(next(parts, b""))
            wall_ms = _now_ms() - began
            cpu_ms = (time.process_time() - used) * MILLI
            now = _backends_ms(self._postgres)
        postgres_ms = sum(ms - servers.get(pid, 0) for pid, ms in now.items())
        size += sum(map(len, parts))
        answer.close()
        return Cost(
            address=address,
            status=answer.status_code,
            wall_ms=wall_ms,
            cpu_ms=cpu_ms,
            postgres_ms=postgres_ms,
            sql_ms=sum(said),
            first_ms=wall_ms,
            statements=len(said),
            size_kb=size / 1e3,
        )


@contextmanager
def _statements() -> Iterator[list[float]]:
    """How long each statement took meanwhile."""
    took: list[float] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        began = _now_ms()
        try:
            return execute(sql, params, many, context)
        finally:
            took.append(_now_ms() - began)

    with connection.execute_wrapper(note):
        yield took


def _now_ms() -> float:
    return time.perf_counter() * MILLI


def _backends_ms(postgres: int) -> dict[int, float]:
    """CPU time so far of each of PostgreSQL's processes that are there."""
    found = {}
    for pid in Path(f"/proc/{postgres}/task/{postgres}/children").read_text().split():
        try:
            found[int(pid)] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
        except (FileNotFoundError, ProcessLookupError):  # It has ended since.
            continue
    return found
