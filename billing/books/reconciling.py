"""Keeps providers' bills, and accepts each once: what `bill_comparison` found is then owed.

Accepting posts the difference to what we booked, so that we owe what the bill says. It waits for
the end of the bill's days, and for somebody to decide every row that could not be used
(`bill_rows`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from django.db import connection, transaction
from django.db.models import Max, Q, QuerySet, Sum

from billing import audit, locks
from billing.books import bill_rows, ledger
from billing.books.bill_comparison import compare, days_of, difference_pico
from billing.books.bill_rows import Part
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.errors import InvoiceRefused
from billing.models import Entry, ProviderBill, ProviderBillRow, UsageDay, UsageEvent
from billing.money import usd_json

DAYS_MAX: Final = 400
# A request of a day's last second is ended within the hour, and booked soon after.
BOOKED_WITHIN: Final = timedelta(hours=2)
# An attempt that was settled after its expiry has taken its own exposure back, and a bill that was
# accepted since has ended it.
EXPOSURE_SQL: Final = """
    SELECT coalesce(sum(greatest(u.hold_nano::numeric * 1000 - u.tenant_cost_pico, 0)), 0)
    FROM billing_usageevent u
    WHERE u.supplier = %(supplier)s AND u.day >= %(first)s AND u.day <= %(last)s
        AND u.outcome = 'unknown' AND u.attempt < 0 AND u.state = 'posted'
        AND NOT EXISTS (SELECT FROM billing_usageevent s WHERE s.request_id = u.request_id
            AND s.attempt = -u.attempt - 1 AND s.day = u.day AND s.state = 'posted')
        AND NOT EXISTS (SELECT FROM billing_providerbill b WHERE b.supplier = u.supplier
            AND b.first_day <= u.day AND b.last_day >= u.day AND b.accepted_at >= u.drained_at)
"""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a document says beside its rows: its total, and its first and last day, of which its
    rows may tell fewer."""

    total_pico: int | None = None
    days: tuple[date, ...] = ()


NOTHING_STATED: Final = Stated()


def store(
    *,
    supplier: str,
    rows: Iterable[ProviderBillRow],
    file_name: str,
    file_format: str,
    file_hash: bytes,
    uploaded_by: str,
    now: datetime,
    stated: Stated = NOTHING_STATED,
) -> ProviderBill:
    """Keep a bill with every row of it, and say what becomes of each. The same file again is
    refused, and so are days without an end."""
    placed = bill_rows.place(rows)
    days = [row.day for row in placed if row.day is not None]
    if not days:
        raise InvoiceRefused(f"no row of the file names its day{_for_example(placed)}")
    days += stated.days
    if max(days) - min(days) > timedelta(days=DAYS_MAX):
        raise InvoiceRefused(f"the file spans more than {DAYS_MAX} days")
    if ProviderBill.objects.filter(supplier=supplier, file_hash=file_hash).exists():
        raise InvoiceRefused("this file was uploaded before")
    with transaction.atomic():
        bill = ProviderBill.objects.create(
            supplier=supplier,
            first_day=min(days),
            last_day=max(days),
            file_name=file_name[:200],
            file_format=file_format[:80],
            file_hash=file_hash,
            stated_pico=stated.total_pico,
            uploaded_by=uploaded_by,
            uploaded_at=now,
        )
        for row in placed:
            row.bill = bill
        ProviderBillRow.objects.bulk_create(placed, batch_size=2_000)
    return bill


def _for_example(rows: Sequence[ProviderBillRow]) -> str:
    row = next((row for row in rows if row.why), None)
    return "" if row is None else f"; line {row.number}: {row.why}"


def accept(*, bill_id: int, accepted_by: str, now: datetime, instead: bool = False) -> ProviderBill:
    """Owe what the bill says: post the difference to the cost of sales, once. `instead`: of bills
    of the same days that were accepted before, which it corrects; what they posted counts."""
    with transaction.atomic():
        # Two bills of the same days are accepted one after the other.
        locks.payouts_until_commit()
        bill = bill_rows.unaccepted(bill_id)
        account = bill_rows.account(bill)
        if refusal := not_yet(bill, account, now, instead=instead):
            raise InvoiceRefused(refusal)
        amount = difference_pico(compare(bill), account["carried"].cost_pico)
        if amount is None:
            raise InvoiceRefused("the file names no sums: it can be compared, not accepted")
        amount -= posted_before_pico(bill)
        released = exposure_pico(bill)
        bill.transfer = ledger.post(_draft(bill, amount, released)) if amount or released else None
        bill.accepted_by, bill.accepted_at = accepted_by, now
        bill.save()
        audit.record(
            actor=accepted_by,
            action="provider_bill.accept",
            subject=str(bill),
            after={
                "difference_usd": usd_json(amount).decode(),
                "exposure_released_usd": usd_json(released).decode(),
                "instead_of": [str(each) for each in accepted_before(bill)],
            }
            | {f"{state}_rows": part.rows for state, part in account.items() if part.rows},
            now=now,
        )
    return bill


def accepted_before(bill: ProviderBill) -> "QuerySet[ProviderBill]":
    """Other bills of some of its days that were accepted."""
    return ProviderBill.objects.filter(
        supplier=bill.supplier,
        accepted_at__isnull=False,
        first_day__lte=bill.last_day,
        last_day__gte=bill.first_day,
    ).exclude(pk=bill.pk)


def unbilled_pico(bill: ProviderBill) -> int:
    """What was booked after the accepted bill before this one, and before this one begins: no bill
    has asked for it, and none has said that it costs nothing."""
    accepted = ProviderBill.objects.filter(supplier=bill.supplier, accepted_at__isnull=False)
    ended = accepted.filter(last_day__lt=bill.first_day).aggregate(day=Max("last_day"))["day"]
    if ended is None:
        return 0
    between = UsageDay.objects.filter(supplier=bill.supplier, day__gt=ended, day__lt=bill.first_day)
    return int(between.aggregate(total=Sum("supplier_cost_pico"))["total"] or 0)


def posted_before_pico(bill: ProviderBill) -> int:
    """What those have added to the cost of sales of their days."""
    posted = Entry.objects.filter(
        transfer__provider_bill__in=accepted_before(bill), account__kind=Kind.COST_OF_SALES
    )
    return int(posted.aggregate(total=Sum("amount_pico"))["total"] or 0)


def not_yet(
    bill: ProviderBill, account: Mapping[str, Part], now: datetime, *, instead: bool = False
) -> str:
    """Why a bill cannot be accepted as it stands; empty where it can."""
    overlapping = accepted_before(bill)
    if not instead and overlapping.exists():
        return "an accepted bill covers some of these days already"
    if overlapping.filter(Q(first_day__lt=bill.first_day) | Q(last_day__gt=bill.last_day)).exists():
        return "an accepted bill covers days that this one does not: it cannot be instead of that"
    ends = datetime.combine(bill.last_day, time(), UTC) + timedelta(days=1)
    if now < ends + BOOKED_WITHIN:
        return f"{bill.last_day} is not over, or its last requests are not booked yet"
    if waiting := _quarantined(bill):
        return f"{waiting} events of its days are in quarantine: decide them first"
    if undecided := account["open"].rows:
        return f"{undecided} rows are neither used, carried nor left out"
    if unexplained := bill_rows.unexplained_pico(bill, account):
        return (
            f"the document states {usd_json(unexplained).decode()} dollars beyond what its rows"
            " come to"
        )
    return ""


def _quarantined(bill: ProviderBill) -> int:
    return UsageEvent.objects.filter(
        state=UsageEvent.State.QUARANTINED,
        supplier=bill.supplier,
        day__gte=bill.first_day,
        day__lte=bill.last_day,
    ).count()


def exposure_pico(bill: ProviderBill) -> int:
    """What expired attempts of the bill's days may still have cost us, as it is booked: the bill
    says what they did cost, so it ends with it. What was settled late is off it already."""
    with connection.cursor() as cursor:
        cursor.execute(EXPOSURE_SQL, days_of(bill))
        return int(cursor.fetchone()[0])


def _draft(bill: ProviderBill, amount_pico: int, released_pico: int) -> Draft:
    payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=bill.supplier)
    exposure = AccountKey(Kind.SUPPLIER_EXPOSURE, supplier=bill.supplier)
    return Draft(
        code=Code.CORRECTION,
        legs=(
            Leg(AccountKey(Kind.COST_OF_SALES, supplier=bill.supplier), amount_pico),
            Leg(payable, -amount_pico),
            Leg(payable, released_pico),
            Leg(exposure, -released_pico),
        ),
        idempotency_key=f"provider-bill:{bill.pk}",
        memo=f"difference to {bill.file_name}"[:200],
    )
