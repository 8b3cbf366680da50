"""What could not be told to Redis, kept on disk until it can.

A settle that Redis did not take is appended here with fsync before the request ends, and replayed
by id: at start, and whenever Redis is back. Replaying twice is harmless, so a crash between replay
and removal loses nothing. Every process owns one file by a lock; the file of a process that died
is taken over by whoever sees it first. Bounded: a full spool says so loudly. Room for the settles
of many open requests is set aside on the disk beforehand, because the disk that is full is often
the one that Redis writes to.
"""

import asyncio
import ctypes
import errno
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path

import msgspec

from billing.holding import settle_records
from billing.holding.settle_records import SettleRecord

logger = logging.getLogger(__name__)

SPOOL_BYTES_MAX = 256 * 1024 * 1024
RESERVE_BYTES = 8 * 1024 * 1024
# Where earlier versions put what Redis had refused, for good as they thought.
REFUSED_NAME = "refused.txt"
TAKEN = b"#"  # instead of a record's first byte
FALLOC_FL_KEEP_SIZE = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Verdict(Enum):
    """What became of one replayed record."""

    TAKEN = "taken"
    LATER = "later"  # the others may be taken all the same
    NOBODY = "nobody"  # nor would any other be


Replay = Callable[[SettleRecord], Awaitable[Verdict]]


class SpoolFull(Exception):
    """No more room for settles that Redis has not taken."""


class Spool:
    """The spool of this process, and the orphans of others."""

    def __init__(
        self,
        folder: Path,
        *,
        bytes_max: int = SPOOL_BYTES_MAX,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._reserve_bytes = reserve_bytes
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._file: int | None = None
        self._size = 0  # with what is being written
        self._written = 0
        self._waiting = 0
        self._is_reserved = False
        self._path = folder / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"

    @property
    def empty(self) -> bool:
        return self._size == 0

    @property
    def waiting(self) -> int:
        """How many records of this process Redis has not taken yet."""
        return self._waiting

    @property
    def ready(self) -> bool:
        """Whether there is room on the disk, whatever happens to it."""
        return self._is_reserved

    def open(self) -> None:
        """Make the folder, claim this process' file and its room; OSError where the disk gives
        none, to be tried again."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = descriptor
            _sync_folder(self._folder)
            _adopt(self._folder)
        if not self._is_reserved:
            _reserve(self._file, self._reserve_bytes)
            self._is_reserved = True

    async def append(self, record: SettleRecord) -> None:
        """Returns once the record is on disk."""
        line = settle_records.encode(record) + b"\n"
        if self._size + len(line) > self._bytes_max:
            raise SpoolFull(f"{self._path} has reached {self._bytes_max} bytes")
        self._size += len(line)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._write, line)
        except OSError:
            self._size -= len(line)
            raise
        self._waiting += 1

    async def replay(self, replay: Replay) -> int:
        """Replay the own file and every orphan; returns how many records were taken. Files that
        were taken whole are emptied."""
        taken = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            own = path == self._path
            if own and self.empty:
                continue
            descriptor = self._file if own else _claim(path)
            if descriptor is None:
                continue
            try:
                done, left, size = await _replay_file(descriptor, path, replay)
                taken += done
                if own:
                    self._waiting -= done
                # Where more was appended meanwhile, the next round takes it all.
                if left is None and not (own and self._size != size):
                    self._discard(path, own=own)
                if left is Verdict.NOBODY:
                    return taken
            finally:
                if not own:
                    os.close(descriptor)
        return taken

    def close(self) -> None:
        """Let go of the file; an empty one is removed."""
        self._writer.shutdown(wait=True)
        if self._file is not None:
            if self.empty:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _write(self, line: bytes) -> None:
        """All of it on disk, or nothing that counts: what is torn is written over by the next."""
        if self._file is None:
            raise OSError(errno.ENOSPC, "the spool could not be opened")
        if os.pwrite(self._file, line, self._written) != len(line):
            raise OSError(errno.ENOSPC, "no room for the whole record")
        os.fsync(self._file)
        self._written += len(line)

    def _discard(self, path: Path, *, own: bool) -> None:
        if not own:
            path.unlink(missing_ok=True)
            return
        assert self._file is not None
        os.ftruncate(self._file, 0)
        self._size = self._written = self._waiting = 0
        # Cutting gave the room away; without it nothing is admitted until it is back.
        self._is_reserved = False
        self.open()


async def _replay_file(
    descriptor: int, path: Path, replay: Replay
) -> tuple[int, Verdict | None, int]:
    """How many records were taken, why some were not, and how far the file was read. What was
    taken is marked, so that a record that must wait does not have it told again."""
    data = await asyncio.to_thread(_read, descriptor)
    taken, left, at = 0, None, 0
    while (end := data.find(b"\n", at)) >= 0:
        line, here = data[at:end], at
        at = end + 1
        record = None if line.startswith(TAKEN) else _decoded(line, path)
        if record is None:
            continue
        verdict = await replay(record)
        if verdict is Verdict.TAKEN:
            os.pwrite(descriptor, TAKEN, here)
            taken += 1
            continue
        left = verdict
        if verdict is Verdict.NOBODY:
            return taken, left, at
    if at < len(data):
        logger.error("%s ends in the middle of a record, which is left out", path)
    return taken, left, at


def _decoded(line: bytes, path: Path) -> SettleRecord | None:
    try:
        return settle_records.decode(line)
    except msgspec.DecodeError:
        logger.exception("a spooled record of %s cannot be read and is left out", path)
        return None


def _read(descriptor: int) -> bytes:
    parts, at = [], 0
    while part := os.pread(descriptor, 1024 * 1024, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _reserve(descriptor: int, size: int) -> None:
    """Room on the disk that nobody else can take, without the file being any longer."""
    if not size or not _LIBC.fallocate(
        descriptor, FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)
    ):
        return
    number = ctypes.get_errno()
    if number != errno.EOPNOTSUPP:
        raise OSError(number, f"no room for {size} bytes of spool: {os.strerror(number)}")
    logger.warning("this file system sets no room aside: a full disk may cost settles")


def _adopt(folder: Path) -> None:
    """What an earlier version has given up on is told again like the file of a dead process."""
    before = folder / REFUSED_NAME
    if before.exists():
        before.rename(folder / f"refused-{os.urandom(4).hex()}.jsonl")


def _sync_folder(folder: Path) -> None:
    """A file that its folder forgets after a crash is no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claim(path: Path) -> int | None:
    """An open, locked descriptor of a file whose process is gone; None while it lives."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
