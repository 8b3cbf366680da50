"""Which pool of PostgreSQL connections a request of the console draws from, and how long its
statements may take.

Lanes are apart: whoever fills one (an operator's heavy lists, a crowd at the public board, exports)
keeps nobody of another waiting. A lane that is full has a short queue, and then says so. Work
without a lane, a Celery process' tasks or a command, has its process' connections for itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest, HttpResponse


@dataclass(frozen=True, slots=True)
class Lane:
    """`share` is its part of a process' connections, in twelfths."""

    name: str
    share: int
    statement_timeout_ms: int
    waiting_max: int

    def connections(self, of_all: int) -> int:
        return max(1, of_all * self.share // 12)


TENANTS: Final = Lane("tenants", share=5, statement_timeout_ms=10_000, waiting_max=60)
PUBLIC: Final = Lane("public", share=3, statement_timeout_ms=5_000, waiting_max=60)
OPERATORS: Final = Lane("operators", share=2, statement_timeout_ms=15_000, waiting_max=12)
EXPORTS: Final = Lane("exports", share=2, statement_timeout_ms=30_000, waiting_max=8)

# By how an address ends, then by how it begins; all other pages and calls are the tenants'.
_ENDS: Final = ((".csv", EXPORTS), ("/pdf/", EXPORTS))
_BEGINS: Final = (
    ("/admin/", OPERATORS),
    ("/api/v1/sellers/", OPERATORS),
    ("/api/v1/payouts/", OPERATORS),
    ("/models/", PUBLIC),
    ("/live/home/", PUBLIC),
    ("/live/board/", PUBLIC),
    ("/api/v1/leaderboards/", PUBLIC),
    ("/api/v1/prices/", PUBLIC),
)
_current: ContextVar[Lane | None] = ContextVar("lane", default=None)


def current() -> Lane | None:
    return _current.get()


@contextmanager
def within(lane: Lane | None) -> Iterator[None]:
    """Connections that are taken meanwhile are this lane's."""
    token = _current.set(lane)
    try:
        yield
    finally:
        _current.reset(token)


def lane_of(path: str) -> Lane:
    if path == "/":
        return PUBLIC
    for end, lane in _ENDS:
        if path.endswith(end):
            return lane
    return next((lane for begin, lane in _BEGINS if path.startswith(begin)), TENANTS)


class Lanes:
    """The outermost middleware: decides before anything asks PostgreSQL."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with within(lane_of(request.path)):
            return self._get_response(request)
