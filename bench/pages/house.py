"""A standing house to ask pages of: a history of events, the catalogue, pages full of the rest.

Made once in a folder and kept there; a later run brings its schema up to date and asks again.
"""

import dataclasses
import json
from pathlib import Path
from typing import Final

import redis
from django.core.management import call_command

from billing.models import Tenant
from tests.gateway import crowds, long_history
from tests.gateway.long_history import Known
from tests.gateway.plans import GROWING

TENANTS: Final = 21
# Rows of each table that grows with use, and of each other: more than a page of a list has.
MANY: Final = 30_000
FEW: Final = 120
KNOWN: Final = "known.json"


def stand(folder: Path, client: redis.Redis, *, events: int) -> Known:
    """The house in this folder, made where there is none; one that was left half made is not
    taken up again."""
    call_command("migrate", verbosity=0)
    note = folder / KNOWN
    if not note.exists():
        note.write_text(json.dumps(dataclasses.asdict(_made(client, events))), encoding="utf-8")
    call_command("rebuild_registers", "--if-cold")
    return Known(**json.loads(note.read_text(encoding="utf-8")))


def _made(client: redis.Redis, events: int) -> Known:
    if Tenant.objects.exists():
        raise RuntimeError("this house was left half made: remove its folder")
    call_command("seed_catalogue")
    history = long_history.write(client, events=events, tenants=TENANTS)
    crowds.crowd_all(GROWING, many=MANY, few=FEW, spread=True)
    return history.known
