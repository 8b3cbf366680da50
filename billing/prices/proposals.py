"""What a newer price history would change: proposed row by row, made only once approved.

The past is not touched: an approved price holds from its approval, or from its own later date. A
sku that somebody priced by hand is left alone, and what was rejected is not proposed again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing import audit
from billing.errors import BillingError, PriceRefused
from billing.models import PriceProposal, PriceVersion
from billing.prices import versions as prices
from billing.prices.imports import DatedRates
from billing.prices.versions import Slot, rates_of
from billing.rates import PPM, Rates, Window

Kind = PriceProposal.Kind
State = PriceProposal.State
BATCH_SIZE: Final = 1_000
# One decision is about so many at most.
DECIDED_MAX: Final = 500


class Key(NamedTuple):
    sku: str
    slot: Slot
    begins_at: datetime | None


@dataclass(frozen=True, slots=True)
class Proposed:
    """How many proposals an import made, kept from an earlier one, and took back."""

    made: int
    kept: int
    superseded: int


@dataclass(frozen=True, slots=True)
class Decision:
    proposal: PriceProposal
    refusal: str = ""


@transaction.atomic
def propose(history: Mapping[str, Sequence[DatedRates]], *, source: str, now: datetime) -> Proposed:
    """Replace the pending proposals of this source by what differs now."""
    family = source.split(" ")[0]
    standing = _standing(now)
    wanted = _differences(history, standing, family, now)
    known = PriceProposal.objects.filter(source__startswith=family).select_for_update()
    kept = 0
    stale: list[int] = []
    for row in known.filter(state=State.PENDING):
        fresh = wanted.get(_key(row))
        if fresh is not None and (fresh.rates, fresh.replaces_id) == (row.rates, row.replaces_id):
            del wanted[_key(row)]
            kept += 1
        else:
            stale.append(row.pk)
    PriceProposal.objects.filter(pk__in=stale).update(state=State.SUPERSEDED, decided_at=now)
    for row in known.filter(state=State.REJECTED):
        fresh = wanted.get(_key(row))
        if fresh is not None and fresh.rates == row.rates:
            del wanted[_key(row)]
    for row in wanted.values():
        row.source, row.proposed_at = source, now
    PriceProposal.objects.bulk_create(wanted.values(), batch_size=BATCH_SIZE)
    return Proposed(made=len(wanted), kept=kept, superseded=len(stale))


def _key(row: PriceProposal) -> Key:
    return Key(row.sku, slot_of(row), row.begins_at)


def slot_of(row: PriceProposal | PriceVersion) -> Slot:
    return Slot(row.service_tier, row.context_over, Window(row.from_minute, row.to_minute))


def _standing(now: datetime) -> dict[str, dict[Slot, list[PriceVersion]]]:
    """List prices that are in force or still to come, by sku and slot."""
    rows = PriceVersion.objects.filter(
        price_list=None, during__overlap=DateTimeTZRange(now, None)
    ).select_related("sku")
    found: dict[str, dict[Slot, list[PriceVersion]]] = {}
    for row in rows:
        found.setdefault(row.sku.code, {}).setdefault(slot_of(row), []).append(row)
    return found


def _differences(
    history: Mapping[str, Sequence[DatedRates]],
    standing: Mapping[str, Mapping[Slot, Sequence[PriceVersion]]],
    family: str,
    now: datetime,
) -> dict[Key, PriceProposal]:
    found: dict[Key, PriceProposal] = {}
    for sku, versions in history.items():
        ours = standing.get(sku, {})
        if any(not row.source.startswith(family) for rows in ours.values() for row in rows):
            continue
        listed: set[Slot] = set()
        for dated in versions:
            if dated.valid_to is not None and dated.valid_to <= now:
                continue
            slot = Slot(dated.service_tier, dated.context_over, dated.window)
            listed.add(slot)
            begins_at = dated.valid_from if dated.valid_from > now else None
            row = _at(ours.get(slot, ()), begins_at or now)
            if row is None or rates_of(row) != dated.rates:
                key = Key(sku, slot, begins_at)
                found[key] = _proposal(key, dated.rates, row)
        for slot in ours.keys() - listed:
            key = Key(sku, slot, None)
            found[key] = _proposal(key, None, _at(ours[slot], now))
    return found


def _at(rows: Iterable[PriceVersion], when: datetime) -> PriceVersion | None:
    return next((row for row in rows if when in row.during), None)


def _proposal(key: Key, rates: Rates | None, standing: PriceVersion | None) -> PriceProposal:
    kind = Kind.END if rates is None else Kind.NEW if standing is None else Kind.CHANGE
    change = None
    if rates is not None and standing is not None:
        change = greatest_change_ppm(rates_of(standing), rates)
    return PriceProposal(
        sku=key.sku,
        **key.slot.columns,
        begins_at=key.begins_at,
        kind=kind,
        rates=None if rates is None else dict(rates.items()),
        replaces=standing,
        change_ppm=change,
    )


def greatest_change_ppm(old: Rates, new: Rates) -> int | None:
    """The change that is farthest from nothing, of the rates that both have."""
    before = dict(old.items())
    changes = [
        (value - had) * PPM // had
        for name, value in new.items()
        if value is not None and (had := before[name])
    ]
    return max(changes, key=abs, default=None)


def approve(ids: Sequence[int], *, actor: str, now: datetime) -> list[Decision]:
    """Publish these changes, each on its own; a refusal leaves that one pending."""
    return [_decided(pk, actor=actor, now=now) for pk in _bounded(ids)]


def _bounded(ids: Sequence[int]) -> list[int]:
    if not 0 < len(ids) <= DECIDED_MAX:
        raise PriceRefused(f"decide on 1 to {DECIDED_MAX} proposals at a time")
    return sorted(set(ids))


def _decided(pk: int, *, actor: str, now: datetime) -> Decision:
    proposal = PriceProposal.objects.get(pk=pk)
    try:
        with transaction.atomic():
            proposal = _pending(pk)
            _make(proposal, actor, now)
            _decide(proposal, State.APPROVED, actor, now)
    except BillingError as refusal:
        return Decision(proposal, str(refusal))
    return Decision(proposal)


def _pending(pk: int) -> PriceProposal:
    row = (
        PriceProposal.objects.select_for_update(of=("self",)).select_related("replaces").get(pk=pk)
    )
    if row.state != State.PENDING:
        raise PriceRefused(f"it is {row.state} already")
    return row


def _make(proposal: PriceProposal, actor: str, now: datetime) -> None:
    slot = slot_of(proposal)
    begins = max(proposal.begins_at or now, now)
    rows = _standing(now).get(proposal.sku, {}).get(slot, ())
    current = _at(rows, begins)
    if (current and current.pk) != proposal.replaces_id:
        raise PriceRefused("the price has changed since it was proposed: run the import again")
    if proposal.rates is None:
        prices.end_slot(sku_code=proposal.sku, slot=slot, at=begins)
        return
    rates = Rates(**proposal.rates)
    prices.publish(
        sku_code=proposal.sku,
        valid_from=begins,
        source=proposal.source,
        recorded_by=actor,
        free=rates.all_zero,
        service_tier=slot.service_tier,
        context_over=slot.context_over,
        window=slot.window,
        **dict(rates.items()),  # type: ignore[arg-type]
    )


def reject(ids: Sequence[int], *, actor: str, now: datetime) -> list[Decision]:
    """Turn these changes down for good: the same one is not proposed again."""
    decisions = []
    for pk in _bounded(ids):
        try:
            with transaction.atomic():
                proposal = _pending(pk)
                _decide(proposal, State.REJECTED, actor, now)
                decisions.append(Decision(proposal))
        except PriceRefused as refusal:
            decisions.append(Decision(PriceProposal.objects.get(pk=pk), str(refusal)))
    return decisions


def _decide(proposal: PriceProposal, state: str, actor: str, now: datetime) -> None:
    proposal.state, proposal.decided_by, proposal.decided_at = state, actor, now
    proposal.save(update_fields=["state", "decided_by", "decided_at"])
    before = rates_of(proposal.replaces) if proposal.replaces else None
    audit.record(
        actor=actor,
        action=f"price_proposal.{state}",
        subject=proposal.sku,
        before=None if before is None else dict(before.items()),
        after={"rates": proposal.rates, "state": state},
        now=now,
    )
