"""One log file per child, with a size limit.

Children write straight into their file, so a busy supervisor never blocks them. Past the limit the
file is copied aside and emptied in place; the children append, so they go on at the new beginning.
Lines written between copy and cut are lost, which a log may do. A disk without room costs lines,
and nothing else.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

BYTES_MAX: Final = 20 * 1024 * 1024


def open_log(folder: Path, name: str) -> IO[bytes]:
    """Where a child writes; nowhere, where there can be no file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        return path_of(folder, name).open("ab", buffering=0)
    except OSError:
        return Path(os.devnull).open("ab", buffering=0)


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"


def last_line(folder: Path, name: str) -> str:
    """What a child said last, for the progress display."""
    lines = tail(folder, name, bytes_max=2000).splitlines()
    return lines[-1].strip() if lines else ""


def tail(folder: Path, name: str, *, bytes_max: int) -> str:
    try:
        with path_of(folder, name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - bytes_max))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def trim(folder: Path, *, bytes_max: int = BYTES_MAX) -> None:
    """Keeps every log and its one predecessor below the limit."""
    for path in folder.glob("*.log"):
        with suppress(OSError):
            if path.stat().st_size > bytes_max:
                _cut(path)


def _cut(path: Path) -> None:
    before = path.with_suffix(".log.1")
    try:
        shutil.copyfile(path, before)
    except OSError:
        # Half a predecessor is worth less than the room it takes.
        before.unlink(missing_ok=True)
    os.truncate(path, 0)
