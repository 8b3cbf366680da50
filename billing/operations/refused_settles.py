"""Settles that Redis refused for good: handed over by data planes, kept for people, told again.

What a caller was told and nobody booked must be seen: a waiting row breaks an invariant until it
is booked after all, or let go with a reason. Each is told again under its own id, so that doing it
twice books once.
"""

import logging
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, cast

import msgspec
import redis
from django.db import DataError, transaction

from billing import audit, registers
from billing.errors import Cold, HoldNotOpen
from billing.holding import holds, settle_records
from billing.holding.settle_records import REASON_LENGTH_MAX, REFUSED_STREAM
from billing.invariant_results import report
from billing.models import RefusedSettle, ShardEpoch, Tenant, UsageEvent
from billing.redis.connection import run, state_of

logger = logging.getLogger(__name__)

State = RefusedSettle.State
TAKEN_UP_MAX: Final = 500
BOOKED: Final = "booked"
UNREADABLE: Final = "a refused settle can be read"


def take_up(client: redis.Redis, *, now: datetime) -> int:
    """Keep what data planes have handed over; returns how many entries were read. One that is
    handed over twice is one row."""
    found = cast(
        list[tuple[bytes, Mapping[bytes, bytes]]],
        client.xrange(REFUSED_STREAM, count=TAKEN_UP_MAX),
    )
    for entry_id, fields in found:
        try:
            _keep(fields, now)
        except (KeyError, OverflowError, ValueError, msgspec.MsgspecError, DataError) as problem:
            logger.exception("refused settle %s cannot be read: %r", entry_id, fields)
            report(UNREADABLE, False, f"{entry_id.decode()}: {problem}", now)
    if found:
        client.xdel(REFUSED_STREAM, *(entry_id for entry_id, _ in found))
    return len(found)


def _keep(fields: Mapping[bytes, bytes], now: datetime) -> None:
    record = settle_records.decode(fields[b"r"])
    reason = fields[b"why"].decode(errors="replace").replace("\0", "")
    with transaction.atomic():
        _, is_new = RefusedSettle.objects.get_or_create(
            request_id=uuid.UUID(record.request_id),
            defaults={
                "tenant_id": record.tenant,
                "record": fields[b"r"],
                "charge_pico": record.charge_pico,
                "reason": reason[:REASON_LENGTH_MAX],
                "settled_at": registers.at_moment(record.now_ms),
                "refused_at": now,
            },
        )
    if is_new:
        logger.error("settle of %s waits for a person: %s", record.request_id, reason)


def replay(
    client: redis.Redis, request_ids: Iterable[uuid.UUID], *, actor: str, now: datetime
) -> dict[uuid.UUID, str]:
    """Tell Redis again; by request id BOOKED, or why not. What it takes is booked by the drain."""
    epochs = dict(ShardEpoch.objects.values_list("shard", "epoch"))
    answers: dict[uuid.UUID, str] = {}
    for request_id in request_ids:
        with transaction.atomic():
            row = RefusedSettle.objects.select_for_update().filter(pk=request_id).first()
            if row is None or row.state != State.WAITING:
                answers[request_id] = "is not waiting"
                continue
            refusal = _told_again(client, row, epochs, now)
            answers[request_id] = refusal or BOOKED
            if refusal:
                row.reason = refusal[:REASON_LENGTH_MAX]
                row.save(update_fields=["reason"])
            else:
                _resolve(row, State.BOOKED, actor=actor, reason="told again", now=now)
    return answers


def _told_again(
    client: redis.Redis, row: RefusedSettle, epochs: Mapping[int, str], now: datetime
) -> str:
    """Why Redis did not take it; empty where it did."""
    record = settle_records.decode(row.record)
    is_forgotten = now - row.settled_at > timedelta(milliseconds=holds.EXPIRED_KEPT_MS)
    expired = UsageEvent.objects.filter(request_id=row.request_id, attempt__lt=0)
    if is_forgotten and expired.exists():
        return "its expiry was charged already, and Redis remembers nothing of that"
    epoch = epochs.get(registers.shard_of(record.tenant), "")
    try:
        reply = run(client, settle_records.call_of(record, epoch=epoch))
        if record.events:
            holds.read_settle(reply)
        else:
            holds.read_void(reply)
    except Cold:
        return "the shard is cold"
    except HoldNotOpen:
        return ""  # A void with nothing left to release.
    except redis.ResponseError as problem:
        if state_of(problem):
            raise
        return str(problem)
    except ValueError as problem:
        return str(problem)
    return ""


def let_go(request_ids: Iterable[uuid.UUID], *, actor: str, reason: str, now: datetime) -> int:
    """Book nothing for these, ever: the house pays. Returns how many were waiting."""
    with transaction.atomic():
        rows = RefusedSettle.objects.select_for_update().filter(
            pk__in=list(request_ids), state=State.WAITING
        )
        for row in rows:
            _resolve(row, State.LET_GO, actor=actor, reason=reason, now=now)
        return len(rows)


def _resolve(row: RefusedSettle, state: str, *, actor: str, reason: str, now: datetime) -> None:
    before = row.state
    row.state, row.resolved_at, row.resolved_by = state, now, actor
    row.save(update_fields=["state", "resolved_at", "resolved_by"])
    audit.record(
        actor=actor,
        action="refused_settle.resolve",
        subject=str(row.request_id),
        tenant=Tenant.objects.filter(pk=row.tenant_id or 0).first(),
        before={"state": before},
        after={"state": state, "charge_pico": int(row.charge_pico)},
        reason=reason,
        now=now,
    )
