"""What becomes of each row of a provider's bill: used, carried or left out, and why.

A row is used where its day, model, counts and sum in dollars are known, also where they are
negative. Every other one waits for a person: its sum is owed though it is of no day or model, or it
is left out, with a reason. So does one that says the same as an earlier one: it may be that twice,
or usage of its own. A row that asks nothing waits for nobody. A sum in another currency is worth
what the rate says that somebody stated for this bill, as of a day and from a source. What the
document states beyond its rows (a fee, a commitment, its rounding) becomes a row when a person
says what it is.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final

from django.db import transaction
from django.db.models import Case, Count, Max, Q, QuerySet, Sum, When

from billing import audit
from billing.errors import InvoiceRefused
from billing.models import BillRate, ProviderBill, ProviderBillRow
from billing.money import PICO_PER_USD, usd_json

State = ProviderBillRow.State
USD: Final = "USD"
NO_SUM: Final = "names no sum"
NO_DAY: Final = "names no day"
NO_ROW: Final = "on the document, in no row of the file"
ASKS_NOTHING: Final = "asks nothing"
AGAIN: Final = re.compile(r"the same as line [0-9]+")
# Of the longest sum with all its digits, times the dearest rate.
EXACT: Final = Context(prec=80)
PICO_PER_UNIT_MAX: Final = 10**6 * PICO_PER_USD


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one fate: how many, what they come to, and of how many the sum is not known."""

    state: str
    label: str
    rows: int
    cost_pico: int
    unknown: int


def no_rate(currency: str) -> str:
    return f"in {currency}, without a rate"


def same_as(number: int) -> str:
    return f"the same as line {number}"


def place(rows: Iterable[ProviderBillRow]) -> list[ProviderBillRow]:
    """Say of each new row what becomes of it. `why` is what its reader could not make out."""
    placed = list(rows)
    has_sums = any(row.amount is not None for row in placed)
    for row in placed:
        _place(row, PICO_PER_USD if row.currency == USD else None, has_sums)
    return placed


def _place(row: ProviderBillRow, pico_per_unit: int | None, has_sums: bool) -> None:
    if row.amount is not None and pico_per_unit is not None:
        row.cost_pico = _pico(row.amount, pico_per_unit)
    missing = _missing(row, has_sums)
    if AGAIN.fullmatch(row.why):
        row.why = f"{row.why}; {missing}" if missing else row.why
    else:
        row.why = row.why or missing
    if not row.why:
        row.state = State.USED
    elif row.amount == 0:
        row.state, row.note = State.LEFT_OUT, ASKS_NOTHING
    else:
        row.state = State.OPEN


def _missing(row: ProviderBillRow, has_sums: bool) -> str:
    if row.amount is None and has_sums:
        return NO_SUM
    if row.cost_pico is None and row.amount is not None:
        return no_rate(row.currency)
    return NO_DAY if row.day is None else ""


def _pico(amount: Decimal, pico_per_unit: int) -> Decimal:
    """Rounded once a row, half away from zero."""
    exact = EXACT.multiply(amount, Decimal(pico_per_unit))
    return exact.quantize(Decimal(1), rounding=ROUND_HALF_UP, context=EXACT)


def state_rate(
    *,
    bill_id: int,
    currency: str,
    pico_per_unit: int,
    day: date,
    source: str,
    stated_by: str,
    now: datetime,
) -> int:
    """Turn a currency's rows into dollars; returns of how many the sum is known now."""
    if not 0 < pico_per_unit <= PICO_PER_UNIT_MAX:
        raise InvoiceRefused("a rate is more than nothing, and at most a million dollars")
    if day > now.date():
        raise InvoiceRefused("a rate is of a day that has come")
    with transaction.atomic():
        bill = unaccepted(bill_id)
        rows = list(bill.rows.filter(currency=currency, state=State.OPEN, amount__isnull=False))
        if currency == USD or not rows:
            raise InvoiceRefused(f"no open row of this bill is in {currency}")
        if bill.rates.filter(currency=currency).exists():
            raise InvoiceRefused(f"the rate of {currency} was stated before")
        BillRate.objects.create(
            bill=bill,
            currency=currency,
            pico_per_unit=pico_per_unit,
            day=day,
            source=source[:120],
            stated_by=stated_by,
            stated_at=now,
        )
        for row in rows:
            said = row.why.split("; ")
            row.why = "; ".join(why for why in said if why != no_rate(currency))
            _place(row, pico_per_unit, has_sums=True)
        ProviderBillRow.objects.bulk_update(
            rows, ["cost_pico", "why", "state", "note"], batch_size=1_000
        )
        audit.record(
            actor=stated_by,
            action="provider_bill.rate",
            subject=str(bill),
            after={
                "currency": currency,
                "usd_per_unit": usd_json(pico_per_unit).decode(),
                "day": day.isoformat(),
                "source": source[:120],
                "rows": len(rows),
            },
            now=now,
        )
    return len(rows)


def decide(
    *,
    bill_id: int,
    numbers: Collection[int] | None,
    state: str,
    note: str,
    decided_by: str,
    now: datetime,
) -> int:
    """Carry these rows, leave them out, or use those that only say the same as an earlier one; None
    is every open one. What was carried or left out may be decided otherwise until the bill is
    accepted. Nothing moves where one of them cannot be."""
    if state not in (State.CARRIED, State.LEFT_OUT, State.USED) or not note.strip():
        raise InvoiceRefused("a row is used, carried or left out, and somebody says why")
    with transaction.atomic():
        bill = unaccepted(bill_id)
        if numbers is None:
            rows = bill.rows.filter(state=State.OPEN)
        else:
            rows = bill.rows.filter(number__in=numbers).exclude(state=State.USED)
        chosen = rows.count()
        if not chosen or (numbers is not None and chosen != len(set(numbers))):
            raise InvoiceRefused("choose rows that are to be decided")
        if state == State.CARRIED and rows.filter(cost_pico=None).exists():
            raise InvoiceRefused("a row whose sum in dollars is not known cannot be carried")
        if state == State.USED and any(not AGAIN.fullmatch(row.why) for row in rows):
            raise InvoiceRefused("only a row that says the same as another can be used by decision")
        sums = rows.aggregate(pico=Sum("cost_pico"))
        shown = [str(number) for number in rows.order_by("number").values_list("number", flat=True)]
        rows.update(state=state, note=note.strip()[:200], decided_by=decided_by, decided_at=now)
        audit.record(
            actor=decided_by,
            action=f"provider_bill.{state}",
            subject=str(bill),
            after={"lines": ", ".join(shown[:50]), "rows": chosen, "usd": _usd(sums["pico"])},
            reason=note.strip()[:200],
            now=now,
        )
    return chosen


def carry_rest(*, bill_id: int, note: str, decided_by: str, now: datetime) -> int:
    """Owe what the document states beyond its rows, below nothing too, as a row of its own;
    returns its sum."""
    if not note.strip():
        raise InvoiceRefused("somebody says what the rest is")
    with transaction.atomic():
        bill = unaccepted(bill_id)
        parts = account(bill)
        rest_pico = unexplained_pico(bill, parts)
        if parts[State.OPEN].rows or not rest_pico:
            raise InvoiceRefused("there is a rest once every row is decided, or none")
        last = bill.rows.aggregate(number=Max("number"))["number"]
        ProviderBillRow.objects.create(
            bill=bill,
            number=last + 1,
            state=State.CARRIED,
            why=NO_ROW,
            amount=Decimal(rest_pico).scaleb(-12, context=EXACT),
            cost_pico=rest_pico,
            note=note.strip()[:200],
            decided_by=decided_by,
            decided_at=now,
        )
        audit.record(
            actor=decided_by,
            action="provider_bill.carry_rest",
            subject=str(bill),
            after={"usd": usd_json(rest_pico).decode()},
            reason=note.strip()[:200],
            now=now,
        )
    return rest_pico


def unexplained_pico(bill: ProviderBill, account: Mapping[str, Part]) -> int:
    """What the document states beyond what its rows come to, whatever becomes of them."""
    if bill.stated_pico is None:
        return 0
    return int(bill.stated_pico) - sum(part.cost_pico for part in account.values())


def _usd(pico: Decimal | None) -> str:
    return usd_json(int(pico or 0)).decode()


def unaccepted(bill_id: int) -> ProviderBill:
    """The bill, locked: nothing about it changes once it is accepted."""
    bill = ProviderBill.objects.select_for_update().get(pk=bill_id)
    if bill.accepted_at is not None:
        raise InvoiceRefused("this bill was accepted before")
    return bill


def account(bill: ProviderBill) -> dict[str, Part]:
    """Every row of the file, by what became of it."""
    unknown = Count("pk", filter=Q(cost_pico=None))
    found = {
        state: (rows, int(pico or 0), unknown_rows)
        for state, rows, pico, unknown_rows in bill.rows.values_list("state").annotate(
            n=Count("pk"), pico=Sum("cost_pico"), unknown=unknown
        )
    }
    return {
        state.value: Part(state.value, str(state.label), *found.get(state.value, (0, 0, 0)))
        for state in State
    }


def not_used(bill: ProviderBill) -> "QuerySet[ProviderBillRow]":
    """What a person has to look at, first what nobody has decided."""
    open_first = Case(When(state=State.OPEN, then=0), default=1)
    return bill.rows.exclude(state=State.USED).order_by(open_first, "number")


def without_rate(bill: ProviderBill) -> list[str]:
    """Currencies that no rate was stated for yet."""
    rows = bill.rows.filter(state=State.OPEN, amount__isnull=False, cost_pico=None)
    return sorted(rows.values_list("currency", flat=True).distinct())
