"""What an installation made for itself and must find again: secrets, and the services' addresses.

Files are 0600 in a 0700 folder. Secrets are made once and never replaced: a new credential key
would make every stored credential unreadable.
"""

import base64
import json
import os
import secrets as random_source
from pathlib import Path
from typing import Final

from gateway.runtime import data_folders
from gateway.runtime.data_folders import Places

ENVIRONMENT_FILE: Final = "environment.json"


def secret_environment(where: Places) -> dict[str, str]:
    """The secrets of this installation as variables, made on first use."""
    where.secrets.mkdir(parents=True, exist_ok=True)
    where.secrets.chmod(0o700)
    fernet_key = base64.urlsafe_b64encode(random_source.token_bytes(32)).decode()
    return {
        "TOKENHOUSE_SECRET_KEY": keep(
            where.secrets / "secret_key", random_source.token_urlsafe(48)
        ),
        "TOKENHOUSE_CREDENTIAL_KEYS": keep(where.secrets / "credential_keys", fernet_key),
    }


def save_environment(where: Places, variables: dict[str, str]) -> None:
    """Lets `manage.py` and the tests' fixtures reach the same database and Redis later."""
    write_private(where.secrets / ENVIRONMENT_FILE, json.dumps(variables, indent=1, sort_keys=True))


def environment_of_clone() -> dict[str, str]:
    """What `make up` last wrote for this clone; empty before the first one, or for another user."""
    path = data_folders.of_clone().secrets / ENVIRONMENT_FILE
    try:
        loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, PermissionError):
        return {}
    return loaded


def write_private(path: Path, content: str) -> None:
    """Replaces a file at once; it is never readable by others, not even for a moment."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def keep(path: Path, fresh: str) -> str:
    """What the file holds; `fresh` is written first where there is none yet."""
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return kept
    write_private(path, fresh)
    return fresh
