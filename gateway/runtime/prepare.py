"""Brings the database of an installation up to date: migrations, catalogue, demo tenant, registers.

Run as a process of its own by `make up`, before anything else touches the database. Each step is
idempotent. What the demo seed shows once is kept in a private file, because people ask twice.
"""

import io
import json
import sys
from pathlib import Path
from typing import Final

import django
from django.core.management import call_command, get_commands

from gateway import env
from gateway.database import schema_check
from gateway.runtime import data_folders
from gateway.runtime.saved_environment import write_private

STEPS: Final = (
    ("migrate", "--noinput"),
    ("seed_catalogue",),
    ("seed_demo", "--print-json"),
    ("rebuild_registers", "--if-cold"),
)


def main() -> None:
    env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
    django.setup()
    schema_check.check()
    known = get_commands()
    for name, *options in STEPS:
        if name not in known:
            continue
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        output = io.StringIO()
        call_command(name, *options, stdout=output)
        if name == "seed_demo":
            keep_demo(data_folders.of_clone().secrets / "demo.json", output.getvalue())


def keep_demo(path: Path, printed: str) -> None:
    """Adds what the seed printed to what it printed earlier; nothing new prints nothing."""
    if not printed.strip():
        return
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_private(path, json.dumps({**kept, **json.loads(printed)}, indent=1))


if __name__ == "__main__":
    main()
