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


def make_enterable(folder: Path) -> None:
    """Makes a folder and its missing parents 0755; those that exist keep their mode."""
    for path in reversed((folder, *folder.parents)):
        if not path.exists():
            path.mkdir()
            path.chmod(0o755)


def open_for_reading(tree: Path) -> None:
    """Lets others read a copy of ours, whatever umask its source was installed under."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))


def require_reach(path: Path, user: OsUser) -> None:
    """Refuses a folder that the service user could not enter, instead of opening its parents."""
    if not user.must_switch:
        return
    for parent in (path, *path.parents):
        status = parent.stat()
        is_own = status.st_uid == user.uid and status.st_mode & 0o100
        if not is_own and not status.st_mode & 0o001:
            raise PermissionError(
                f"the OS user {user.name} cannot enter {parent}, and nothing above the data is "
                "opened for it; set TOKENHOUSE_DATA_DIR to a folder elsewhere"
            )


def _make_service_user() -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SERVICE_USER]
    # Exit code 9: the name exists, because another clone made it between our two looks.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode not in (0, 9):
        raise RuntimeError(f"cannot make the system user {SERVICE_USER}: {done.stderr.strip()}")
