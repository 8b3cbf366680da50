"""Messages of the payment processor, in whatever order they come: each id acts once, for good.

A message that speaks of a payment which is not known yet (a refund that overtook its payment) waits
and is tried again: when a payment comes, and in growing pauses for a month. Then it is given up:
an account at a processor may serve other shops too. What a person has to look at says so.
"""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction

from billing import audit, fault_isolation
from billing.errors import CreditRefused, PaymentDoubted, PaymentUnknown
from billing.models import ProcessorEvent
from billing.payments import facts as payment_facts
from billing.payments import returns, topups
from billing.payments.facts import Disputed, Fact, Failed, Paid, Refunded

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = timedelta(minutes=1)
PAUSE_MAX: Final = timedelta(hours=6)
WAITS_MAX: Final = timedelta(days=30)
PER_RUN_MAX: Final = 500
State = ProcessorEvent.State


@dataclass(frozen=True, slots=True)
class Told:
    """A message as it came, with the processor's id and kind of it."""

    event_id: str
    kind: str
    body: bytes
    at: datetime

    @property
    def body_hash(self) -> bytes:
        return hashlib.sha256(self.body).digest()


def receive(told: Told, fact: Fact | str, *, seller: dict[str, str]) -> str:
    """Carry out what a message says, once per id and in one transaction; what came of it. `fact` is
    a text where there is nothing to do but to note why.

    The same message again changes nothing; the same id with another body is refused.
    """
    with transaction.atomic():
        event, is_new = ProcessorEvent.objects.select_for_update().get_or_create(
            event_id=told.event_id,
            defaults={"kind": told.kind[:80], "body_hash": told.body_hash, "received_at": told.at},
        )
        if is_new and isinstance(fact, str):
            event.outcome = fact[:200]
            event.save(update_fields=["outcome"])
        elif is_new and not isinstance(fact, str):
            _try(event, fact, seller=seller, now=told.at)
    if bytes(event.body_hash) != told.body_hash:
        logger.error("processor event %s came again with another body", told.event_id)
        raise CreditRefused("this event is known with another body")
    if not is_new:
        return "known already"
    if isinstance(fact, Paid) and event.state == State.DONE:
        _try_waiting(fact.reference, seller=seller, now=told.at)
    return event.outcome


def doubt(told: Told, *, why: str) -> None:
    """Note a message that was signed and cannot be read: a person has to look at it."""
    ProcessorEvent.objects.get_or_create(
        event_id=told.event_id,
        defaults={
            "kind": told.kind[:80],
            "body_hash": told.body_hash,
            "state": State.REVIEW,
            "outcome": why[:200],
            "received_at": told.at,
        },
    )
    logger.error("processor event %s, %s: %s", told.event_id, told.kind, why)


def resolve(ids: Collection[int], *, note: str, actor: str, now: datetime) -> int:
    """Say that a person has looked at these, and what was done; returns how many waited for that.
    No money moves by it."""
    if not note.strip():
        raise CreditRefused("somebody says what was done")
    with transaction.atomic():
        events = ProcessorEvent.objects.select_for_update().order_by("pk")
        waiting = list(events.filter(pk__in=ids, state=State.REVIEW))
        for event in waiting:
            event.state = State.DONE
            event.save(update_fields=["state"])
            audit.record(
                actor=actor,
                action="processor_event.resolve",
                subject=event.event_id,
                before={"state": str(State.REVIEW), "outcome": event.outcome},
                after={"state": str(State.DONE)},
                reason=note.strip(),
                now=now,
            )
    return len(waiting)


def retry_due(*, seller: dict[str, str], now: datetime) -> int:
    """Try what waits and is due; returns how many have found their payment."""
    due = ProcessorEvent.objects.filter(due_at__lte=now).order_by("due_at", "pk")
    found = fault_isolation.each(
        due.values_list("pk")[:PER_RUN_MAX],
        lambda pk: _try_again(pk, seller=seller, now=now),
        name=lambda pk: f"processor event {pk[0]}",
    )
    return sum(found)


def _try_waiting(reference: str, *, seller: dict[str, str], now: datetime) -> None:
    """What overtook this payment, now that it is here. In transactions of their own: the payment
    stands whatever becomes of them."""
    waiting = ProcessorEvent.objects.filter(reference=reference, state=State.WAITING)
    for pk in waiting.order_by("pk").values_list("pk"):
        _try_again(pk, seller=seller, now=now)


def _try_again(pk: tuple[int], *, seller: dict[str, str], now: datetime) -> bool:
    with transaction.atomic():
        waiting = ProcessorEvent.objects.select_for_update(skip_locked=True)
        event = waiting.filter(pk=pk[0], state=State.WAITING).first()
        if event is None:
            return False
        _try(event, payment_facts.read(event.fact), seller=seller, now=now)
    return event.state == State.DONE


def _try(event: ProcessorEvent, fact: Fact, *, seller: dict[str, str], now: datetime) -> None:
    event.tries += 1
    event.fact, event.due_at, event.reference = None, None, ""
    try:
        event.state, event.outcome = State.DONE, _act(fact, seller=seller, now=now)[:200]
    except PaymentDoubted as doubtful:
        event.state, event.outcome = State.REVIEW, str(doubtful)[:200]
        logger.error("processor event %s, %s: %s", event.event_id, event.kind, doubtful)
    except PaymentUnknown as unknown:
        event.outcome = str(unknown)[:200]
        _wait(event, fact, now)
    event.save()


def _wait(event: ProcessorEvent, fact: Fact, now: datetime) -> None:
    event.reference = payment_facts.subject_of(fact)[:120]
    if now - event.received_at >= WAITS_MAX:
        event.state = State.GIVEN_UP
        logger.warning("processor event %s, %s: given up", event.event_id, event.kind)
        return
    event.state, event.fact = State.WAITING, payment_facts.kept(fact)
    event.due_at = now + min(FIRST_PAUSE * 2 ** min(event.tries - 1, 12), PAUSE_MAX)


def _act(fact: Fact, *, seller: dict[str, str], now: datetime) -> str:
    match fact:
        case Paid():
            return topups.paid(fact, seller=seller, now=now)
        case Failed():
            return topups.failed(fact, now=now)
        case Refunded():
            return returns.refunded(fact, seller=seller, now=now)
        case Disputed():
            return returns.disputed(fact, seller=seller, now=now)
