"""Takes refused requests from the data plane's stream into Postgres, so that people can ask why.

No money moved for any of them. The stream is bounded: under a flood the oldest are lost. Callers
choose some of the words in a note, so one that PostgreSQL does not take costs only itself.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, cast
from uuid import UUID

import msgspec
import redis
from django.db import DataError, transaction

from billing.models import Tenant
from billing.registers import REFUSALS_STREAM
from gateway.models import Refusal

BATCH_SIZE = 2_000
Entry = tuple[bytes, Mapping[bytes, bytes]]

log = logging.getLogger(__name__)

Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
# Until the year 9999, which is as far as dates go.
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=253_000_000_000_000)]


class RefusedRequest(msgspec.Struct, frozen=True):
    """One entry as the data plane writes it."""

    request_id: UUID
    tenant: int
    key: int | None
    model: str
    status: Status
    code: str
    message: str
    at_ms: Milliseconds
    detail: dict[str, object] = {}


@transaction.atomic
def record(client: redis.Redis) -> int:
    """Move one batch from the stream into Postgres; returns how many entries were read."""
    entries = cast(list[Entry], client.xrange(REFUSALS_STREAM, count=BATCH_SIZE))
    if not entries:
        return 0
    _save([found for _, fields in entries if (found := _decoded(fields)) is not None])
    ids = [entry_id for entry_id, _ in entries]
    transaction.on_commit(lambda: client.xdel(REFUSALS_STREAM, *ids))
    return len(entries)


def _decoded(fields: Mapping[bytes, bytes]) -> RefusedRequest | None:
    try:
        return msgspec.json.decode(fields.get(b"r", b""), type=RefusedRequest)
    except msgspec.MsgspecError:
        log.warning("a refusal that cannot be read was dropped")
        return None


def _save(found: list[RefusedRequest]) -> None:
    tenants = set(
        Tenant.objects.filter(pk__in={r.tenant for r in found}).values_list("pk", flat=True)
    )
    _insert([_row(refused) for refused in found if refused.tenant in tenants])


def _insert(rows: list[Refusal]) -> None:
    """All rows at once; where PostgreSQL refuses one, halves, until it stands alone."""
    if not rows:
        return
    try:
        with transaction.atomic():
            Refusal.objects.bulk_create(rows, ignore_conflicts=True)
    except (DataError, ValueError):
        if len(rows) == 1:
            log.warning("a refusal that PostgreSQL does not take was dropped")
            return
        middle = len(rows) // 2
        _insert(rows[:middle])
        _insert(rows[middle:])


def _row(refused: RefusedRequest) -> Refusal:
    return Refusal(
        request_id=refused.request_id,
        tenant_id=refused.tenant,
        api_key_id=refused.key,
        model=refused.model[:200],
        status=refused.status,
        code=refused.code[:64],
        message=refused.message[:500],
        detail=refused.detail,
        occurred_at=datetime.fromtimestamp(refused.at_ms / 1000, tz=UTC),
    )
