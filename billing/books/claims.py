"""Claims of sellers beyond what was asked of them: kept for review, nothing owed until then.

The drain opens one in the transaction of its event. Deciding posts what the seller is owed after
all, once; its tenant has paid the estimate, and pays no more.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from django.db import transaction

from billing import audit, registers
from billing.books import ledger
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.errors import CreditRefused
from billing.holding.usage_stream import StreamEntry
from billing.models import Claim

WITHIN_ASKED: Final = "sellers claim no more than was asked of them"
SHOWN_MAX: Final = 5


def open_new(entries: Sequence[StreamEntry], new: Collection[str]) -> None:
    """Keep the claims among newly written events, in the caller's transaction."""
    found = [_claim(entry) for entry in entries if entry.event.claimed and entry.id in new]
    if found:
        Claim.objects.bulk_create(found, ignore_conflicts=True)


def _claim(entry: StreamEntry) -> Claim:
    event, claimed, billed = entry.event, entry.event.claimed, entry.event.usage
    assert claimed is not None
    return Claim(
        request_id=event.request_id,
        attempt=entry.attempt,
        tenant_id=event.tenant,
        supplier=event.supplier[:80],
        sku=event.sku[:200],
        reason=event.problem[:200],
        claimed_input_tokens=claimed.input_tokens,
        claimed_output_tokens=claimed.output_tokens,
        billed_input_tokens=billed.input_tokens if billed else 0,
        billed_output_tokens=billed.output_tokens if billed else 0,
        occurred_at=registers.at_moment(event.occurred_ms),
    )


def undecided() -> list[str]:
    """What waits for somebody, in words; the check of this name holds once there is nothing."""
    waiting = Claim.objects.filter(decided_at=None).order_by("occurred_at")
    return [f"{claim.supplier} {claim.request_id}: {claim.reason}" for claim in waiting[:SHOWN_MAX]]


def decide_all(
    *, claim_ids: Sequence[int], owed_pico: int, decided_by: str, reason: str, now: datetime
) -> list[Claim]:
    """Decide what each of these sellers is owed after all: all of them, or none."""
    if not reason.strip():
        raise CreditRefused("a decision needs a reason")
    if owed_pico < 0:
        raise CreditRefused("a seller is owed nothing or more")
    with transaction.atomic(durable=True):
        claims = list(
            Claim.objects.select_for_update(of=("self",))
            .select_related("tenant")
            .filter(pk__in=claim_ids, decided_at=None)
            .order_by("pk")
        )
        if len(claims) != len(set(claim_ids)):
            raise CreditRefused("no such claim, or it is decided")
        for claim in claims:
            _decide(claim, owed_pico, decided_by, reason, now)
    return claims


def _decide(claim: Claim, owed_pico: int, decided_by: str, reason: str, now: datetime) -> None:
    if owed_pico:
        claim.transfer = ledger.post(_draft(claim, owed_pico, f"{decided_by}: {reason}"[:200]))
    claim.owed_pico = owed_pico
    claim.decided_at, claim.decided_by, claim.decision = now, decided_by[:150], reason[:200]
    claim.save()
    audit.record(
        actor=decided_by,
        action="claim.decide",
        subject=f"request {claim.request_id}, attempt {claim.attempt}, of {claim.supplier}",
        before={"owed_pico": 0, "claimed": str(claim)},
        after={"owed_pico": owed_pico},
        reason=reason,
        now=now,
    )


def _draft(claim: Claim, owed_pico: int, memo: str) -> Draft:
    return Draft(
        code=Code.CORRECTION,
        legs=(
            Leg(AccountKey(Kind.COST_OF_SALES, supplier=claim.supplier), owed_pico),
            Leg(AccountKey(Kind.PROVIDER_PAYABLE, supplier=claim.supplier), -owed_pico),
        ),
        idempotency_key=f"claim:{claim.pk}",
        memo=memo,
    )
