"""What memory this process may still take, and a clear refusal before it takes too much."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

MEMINFO: Final = Path("/proc/meminfo")
CGROUP: Final = Path("/sys/fs/cgroup")
STATM: Final = Path("/proc/self/statm")
MB: Final = 1e6
T = TypeVar("T")


class NotEnoughMemory(RuntimeError):
    """Something of a chosen size does not fit; the message names both sizes and the setting."""


def available_bytes() -> int | None:
    """Free memory of the machine or of this container, whichever is less; None if unknown."""
    known = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(known, default=None)


def resident_growth(make: Callable[[], T]) -> tuple[T, int | None]:
    """What `make` makes, and by how much this process grew with it; None if unknown."""
    before = _resident_bytes()
    made = make()
    after = _resident_bytes()
    return made, None if before is None or after is None else max(0, after - before)


def _resident_bytes() -> int | None:
    if not STATM.is_file():
        return None
    pages = int(STATM.read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def check_blocks(blocks: int, *, block_bytes: int, block_size: int, available: int | None) -> None:
    """Raise `NotEnoughMemory` if so many blocks of keys and values cannot be held."""
    if available is None or blocks * block_bytes <= available:
        return
    fitting = available // block_bytes
    # Block 0 is padding, so one that can be used is the second.
    advice = f"at most {fitting} fit: set --kv-blocks" if fitting > 1 else "not even one fits"
    raise NotEnoughMemory(
        f"{blocks} blocks of {block_size} tokens need {blocks * block_bytes / MB:,.0f} MB of "
        f"memory, {available / MB:,.0f} MB are available; {advice}"
    )


def _of_machine() -> int | None:
    kilobytes = _field(MEMINFO, "MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _of_container() -> int | None:
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return None
    # Cached files count as used, and are dropped when memory is wanted.
    return max(0, limit - used + (_field(CGROUP / "memory.stat", "file") or 0))


def _number(path: Path) -> int | None:
    """The file's number; None without the file, or where it says "max"."""
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int | None:
    """The number behind a name in a file of names and numbers."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((int(words[1]) for words in map(str.split, lines) if words[0] == name), None)
