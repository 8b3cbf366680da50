"""Where a clone keeps its data: `.tokenhouse/` for a user, `/var/lib/tokenhouse/<hash>/` for root.

Root's data lives outside the clone because the database runs as an OS user of its own, which must
reach its files without anybody opening a private home folder to it. Nothing above the folder is
ever chmod-ed.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import env

CLONE: Final = Path(__file__).resolve().parents[2]
SOCKET_PATH_BYTES_MAX: Final = (
    100  # The kernel's limit is 107, and the socket's own name goes on top.
)


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one installation; tests make one of their own in a temporary folder."""

    root: Path
    sockets: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def postgres_data(self) -> Path:
        return self.root / "postgres"

    @property
    def redis_data(self) -> Path:
        return self.root / "redis"

    @property
    def install(self) -> Path:
        """Binaries copied out of the wheels; not data, may be deleted at any time."""
        return self.root / "services"


def of_clone() -> Places:
    root = data_root()
    return Places(root=root, sockets=_socket_folder(root))


def in_folder(root: Path) -> Places:
    return Places(root=root, sockets=_socket_folder(root))


def data_root() -> Path:
    chosen = env.lookup("TOKENHOUSE_DATA_DIR")
    if chosen is not None:
        return CLONE / chosen
    return natural_root()


def natural_root() -> Path:
    """Where this clone keeps its data unless an operator chose another place."""
    if os.geteuid() != 0:
        return CLONE / ".tokenhouse"
    return Path("/var/lib/tokenhouse") / clone_hash()


def clone_hash() -> str:
    return hashlib.sha256(str(CLONE).encode()).hexdigest()[:12]


def _socket_folder(root: Path) -> Path:
    natural = root / "run"
    if len(os.fsencode(natural / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX:
        return natural
    # A clone deep in the tree would exceed the kernel's limit for socket paths.
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tokenhouse-{os.geteuid()}-{digest}"
