"""Who runs for this installation: a lock that one supervisor holds, and the list of its children.

The lock dies with its holder. The list outlives a supervisor that was killed, so that the next one
can end what is left. A process is only touched if pid, start time and boot all match the list.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gateway.runtime import child, osuser
from gateway.runtime.data_folders import Places
from gateway.runtime.saved_environment import write_private

LEAVE_BY_ITSELF_S: Final = 15.0
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class AlreadyRunning(RuntimeError):
    def __init__(self, pid: int) -> None:
        super().__init__(f"this clone is already up (supervisor {pid}); stop it with `make down`")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Entry:
    """One child as it was started; `started_ticks` tells it from a later owner of its pid."""

    name: str
    pid: int
    started_ticks: int


class Lock:
    """Held by the running supervisor; the file's text is its pid."""

    def __init__(self, where: Places) -> None:
        osuser.make_enterable(where.root)
        self._path = where.root / "supervisor.lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def take(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(self.holder()) from None
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def is_free(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True

    def holder(self) -> int:
        return int(self._path.read_text(encoding="ascii") or "0")

    def close(self) -> None:
        os.close(self._descriptor)


def note(where: Places, children: Iterable[Entry]) -> None:
    content = {"boot": _boot_id(), "children": [asdict(entry) for entry in children]}
    write_private(_path(where), json.dumps(content))


def sweep(where: Places) -> list[str]:
    """Ends what an earlier supervisor left behind; returns the names of what was still there."""
    left = [entry for entry in noted(where) if _members(entry)]
    deadline = time.monotonic() + LEAVE_BY_ITSELF_S
    for entry in left:
        _ask(entry)
    while any(_members(entry) for entry in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    for entry in left:
        if _members(entry):
            child.kill_group(entry.pid)
    return [entry.name for entry in left]


def entry_for(name: str, pid: int) -> Entry:
    return Entry(name=name, pid=pid, started_ticks=_started_ticks(pid) or 0)


def noted(where: Places) -> list[Entry]:
    try:
        content = json.loads(_path(where).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    if content["boot"] != _boot_id():
        return []
    return [Entry(**entry) for entry in content["children"]]


def _members(entry: Entry) -> list[int]:
    """Living processes of the session that this child leads, or led before it died."""
    leader_start = _started_ticks(entry.pid)
    if leader_start is not None and leader_start != entry.started_ticks:
        return []  # The pid has a new owner.
    return [pid for pid in _all_pids() if _session(pid) == entry.pid]


def _ask(entry: Entry) -> None:
    try:
        os.kill(entry.pid, signal.SIGINT if entry.name == "postgres" else signal.SIGTERM)
    except ProcessLookupError:
        return  # The leader is gone, its children are killed after the wait.


def _path(where: Places) -> Path:
    return where.root / "children.json"


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()


def _all_pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, which may itself contain blanks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields


def _session(pid: int) -> int | None:
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[3])


def _started_ticks(pid: int) -> int | None:
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[19])
