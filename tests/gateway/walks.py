"""What some work enters of our own code: files and functions, in the order of their first call.

Only what runs on the work's behalf counts: its task, the tasks that it makes and the callbacks
that it leaves, all of which carry its context. Other work of the process carries none.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Final

CLONE: Final = Path(__file__).resolve().parents[2]
OURS: Final = tuple(f"{CLONE}/{package}/" for package in ("billing", "gateway", "providers"))

Walk = dict[tuple[str, str], None]
_walk: ContextVar[Walk | None] = ContextVar("walk", default=None)


def _note(frame: FrameType, event: str, _: object) -> None:
    walk, file = _walk.get(), frame.f_code.co_filename
    if event == "call" and walk is not None and file.startswith(OURS):
        walk.setdefault((file.removeprefix(f"{CLONE}/"), frame.f_code.co_name))


@contextmanager
def walking() -> Iterator[Walk]:
    """Filled meanwhile with what this context enters in this thread."""
    walk: Walk = {}
    token = _walk.set(walk)
    before = sys.getprofile()
    sys.setprofile(_note)
    try:
        yield walk
    finally:
        sys.setprofile(before)
        _walk.reset(token)


def written_at(folder: str, path: str) -> Path:
    """Where a walked data plane writes the walk of a request to this path, once it is over."""
    return Path(folder) / f"walk{path.replace('/', '-')}.json"
