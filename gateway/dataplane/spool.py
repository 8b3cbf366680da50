"""What could not be told to Redis, kept on disk until it can.

A settle that Redis did not take is appended here with fsync before the request ends, and replayed
by id: at start, and whenever Redis is back. Replaying twice is harmless, so a crash between
replay and removal loses nothing. Every process owns one file by a lock; the file of a process
that died is taken over by whoever sees it first. Bounded: a full spool says so loudly. A record
that Redis will never take is set aside for a person, so that it does not keep back the others.
"""

import asyncio
import errno
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from billing.holds import SpendScope

logger = logging.getLogger(__name__)

SPOOL_BYTES_MAX = 256 * 1024 * 1024
REFUSED_NAME = "refused.txt"


class SettleRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A settle as it was meant. No epoch: it is replayed under the one in force then.

    Without events it is the void of a hold that may have been placed without our hearing of it.
    """

    tenant: int
    key: int
    request_id: str
    now_ms: int
    tokens: int | None = None
    events: list[tuple[bytes, int]] = []
    spend: tuple[SpendScope, ...] = ()  # the hold's scopes, should Redis have lost it
    not_in: list[tuple[int, ...]] = []  # per event, where some of them do not count it


Replay = Callable[[SettleRecord], Awaitable[bool]]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SettleRecord).decode


class SpoolFull(Exception):
    """No more room for settles that Redis has not taken."""


class RecordRefused(Exception):
    """Redis has said no to this record, and would say so again."""


class Spool:
    """The spool of this process, and the orphans of others."""

    def __init__(self, folder: Path, *, bytes_max: int = SPOOL_BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._file: int | None = None
        self._size = 0
        self._path = folder / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"

    @property
    def empty(self) -> bool:
        return self._size == 0

    def open(self) -> None:
        """Make the folder and claim this process' file."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sync_folder(self._folder)

    async def append(self, record: SettleRecord) -> None:
        """Returns once the record is on disk."""
        line = _encode(record) + b"\n"
        if self._size + len(line) > self._bytes_max:
            raise SpoolFull(f"{self._path} has reached {self._bytes_max} bytes")
        self._size += len(line)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._write, line)
        except OSError:
            self._size -= len(line)
            raise

    async def set_aside(self, record: SettleRecord) -> None:
        """Keep a record that Redis will never take where a person finds it."""
        logger.error("settle of %s is refused for good; see %s", record.request_id, REFUSED_NAME)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._write_refused, _encode(record) + b"\n")

    async def replay(self, replay: Replay) -> int:
        """Replay the own file and every orphan; stops where Redis does not take a record.

        Returns how many records were taken. Files that were taken whole are emptied.
        """
        taken = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            own = path == self._path
            if own and self.empty:
                continue
            descriptor = self._file if own else _claim(path)
            if descriptor is None:
                continue
            try:
                done = await self._replay_file(path, replay)
                taken += done
                if done < 0:
                    return taken
                self._discard(path, own=own)
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
        assert self._file is not None
        _append(self._file, line)

    def _write_refused(self, line: bytes) -> None:
        path = self._folder / REFUSED_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(line) <= self._bytes_max:
                _append(descriptor, line)
        finally:
            os.close(descriptor)

    async def _replay_file(self, path: Path, replay: Replay) -> int:
        """The number of records taken, or -1 where one was not."""
        data = await asyncio.to_thread(path.read_bytes)
        lines = data.split(b"\n")
        if lines[-1]:
            logger.error("%s ends in the middle of a record, which is left out", path)
        for line in lines[:-1]:
            try:
                record = _decode(line)
            except msgspec.DecodeError:
                logger.exception("a spooled record of %s cannot be read and is left out", path)
                continue
            try:
                if not await replay(record):
                    return -1
            except RecordRefused:
                await self.set_aside(record)
        if path == self._path and self._size != len(data):
            return -1  # more is being appended: the next round takes it all
        return len(lines) - 1

    def _discard(self, path: Path, *, own: bool) -> None:
        if own:
            assert self._file is not None
            os.ftruncate(self._file, 0)
            self._size = 0
        else:
            path.unlink(missing_ok=True)


def _append(descriptor: int, line: bytes) -> None:
    """All of it on disk, or nothing: a torn line would swallow the one after it."""
    before = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, "no room for the whole record")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise


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
