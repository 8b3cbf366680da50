"""The OS user that embedded services run as: whoever started us, or `tokenhouse` when that is root.

PostgreSQL refuses to run as root, and a database user of its own keeps other users of the machine
out by ordinary file permissions and by peer authentication.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SERVICE_USER: Final = "tokenhouse"


@dataclass(frozen=True, slots=True)
class OsUser:
    name: str
    uid: int
    gid: int

    @property
    def must_switch(self) -> bool:
        return self.uid != os.geteuid()


def current() -> OsUser:
    entry = pwd.getpwuid(os.geteuid())
    return OsUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def for_services() -> OsUser:
    """The user for Postgres and Redis; as root, makes the system user on first use."""
    if os.geteuid() != 0:
        return current()
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        _make_service_user()
        entry = pwd.getpwnam(SERVICE_USER)
    return OsUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def own_folder(path: Path, *, owner: OsUser, mode: int) -> None:
    """Makes `path` and gives it owner and mode; its parents keep theirs."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, owner.uid, owner.gid)
    path.chmod(mode)


def _make_service_user() -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SERVICE_USER]
    # Exit code 9: the name exists, because another clone made it between our two looks.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode not in (0, 9):
        raise RuntimeError(f"cannot make the system user {SERVICE_USER}: {done.stderr.strip()}")
