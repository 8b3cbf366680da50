"""Which charges an invoice covers: each exactly once, whatever period it is called after.

An invoice reaches up to a moment (its period's end) and up to a transfer (the last one posted when
it was made), and covers what no other live invoice of the tenant does; PostgreSQL refuses a second
cover of the same charge. So neither another time zone nor another order of drafts bills twice, and
what is posted late is on the next one. Ids of transfers are given out in order within a tenant,
because both writers, drains and resolutions, are kept out while the last one is looked up.
"""

from typing import Final

from django.db import connection, transaction
from django.db.models import Exists, F, Max, OuterRef, Sum

from billing import locks, registers
from billing.invoicing.charge_rectangles import Span, left_of
from billing.models import AdjustmentNote, CoveredSpan, Invoice, Tenant, Transfer, UsageDay

LOCK_WAIT_S: Final = 5.0

# The charges `u` of one invoice; the parameter's name is `invoice`. A span of everything up to a
# transfer is read by the days of its requests, which the rollups know of every hour; one of what
# was posted late, which reaches back to the beginning, by the transfers between: so a draft reads
# what is new, however long the tenant's history is.
COVERED_SQL: Final = """
    (SELECT * FROM billing_coveredspan WHERE invoice_id = %(invoice)s) s CROSS JOIN LATERAL (
        SELECT billing_first_id_of(min(day)) AS first, billing_first_id_of(max(day) + 1) AS after
        FROM billing_usagehour
        WHERE s.posted_after = 0 AND tenant_id = s.tenant_id
            AND hour >= date_trunc('hour', s.occurred_from, 'UTC') AND hour < s.occurred_until
    ) requests CROSS JOIN LATERAL (
        SELECT e.* FROM billing_usageevent e
        WHERE s.posted_after = 0 AND e.tenant_id = s.tenant_id
            AND e.request_id >= requests.first AND e.request_id < requests.after
            AND e.occurred_at >= s.occurred_from AND e.occurred_at < s.occurred_until
            AND e.transfer_id <= s.posted_upto AND e.state = 'posted'
        UNION ALL
        SELECT e.* FROM billing_transfer t JOIN billing_usageevent e ON e.transfer_id = t.id
        WHERE s.posted_after > 0 AND t.tenant_id = s.tenant_id
            AND t.id > s.posted_after AND t.id <= s.posted_upto AND e.tenant_id = s.tenant_id
            AND e.occurred_at >= s.occurred_from AND e.occurred_at < s.occurred_until
            AND e.state = 'posted'
    ) u
"""


def last_transfer(tenant: Tenant) -> int:
    """The id up to which every transfer of this tenant is committed. LockTimeout if it is busy."""
    shard = registers.shard_of(tenant.pk)
    with locks.shard_or_raise(shard, wait_s=LOCK_WAIT_S), transaction.atomic():
        with connection.cursor() as cursor:
            # Waits for whoever is posting; nobody posts until this short transaction ends.
            cursor.execute("SET LOCAL lock_timeout = '5s'")
            cursor.execute("LOCK TABLE billing_transfer IN SHARE ROW EXCLUSIVE MODE")
        newest = Transfer.objects.filter(tenant=tenant).aggregate(last=Max("pk"))["last"]
    return int(newest or 0)


def give_back(invoice: Invoice) -> None:
    """Let a draft cover nothing, so that another one may."""
    invoice.spans.all().delete()


def cover(invoice: Invoice) -> None:
    """Let a draft cover all of before its end that is posted by its last transfer and that no
    other live invoice covers. The caller has the tenant's row."""
    give_back(invoice)
    others = CoveredSpan.objects.filter(tenant=invoice.tenant_id, is_live=True)
    taken = [
        Span(*row) for row in others.order_by("occurred_from", "pk").values_list(*Span._fields)
    ]
    reached = Span(0, invoice.upto_transfer, registers.EPOCH, invoice.period_end)
    CoveredSpan.objects.bulk_create(
        CoveredSpan(invoice=invoice, tenant_id=invoice.tenant_id, **span._asdict())
        for span in left_of(reached, taken)
    )


def hand_over(invoice: Invoice, successor: Invoice) -> None:
    """What a void invoice covered is covered by its successor, and only by it."""
    spans = list(invoice.spans.all())
    invoice.spans.update(is_live=False)
    for span in spans:
        span.pk, span.invoice = None, successor
    CoveredSpan.objects.bulk_create(spans)


def notes_of(invoice: Invoice) -> list[AdjustmentNote]:
    """The adjustment notes that it covers, by the same spans as charges."""
    found = AdjustmentNote.objects.filter(
        Exists(
            CoveredSpan.objects.filter(
                invoice=invoice,
                tenant=OuterRef("tenant"),
                occurred_from__lte=OuterRef("issued_at"),
                occurred_until__gt=OuterRef("issued_at"),
                posted_after__lt=OuterRef("grant__transfer"),
                posted_upto__gte=OuterRef("grant__transfer"),
            )
        ),
        tenant=invoice.tenant_id,
    )
    return list(found.select_related("grant").order_by("pk"))


def open_pico(tenant: Tenant) -> int:
    """What was charged, adjustments included, and stands on no issued invoice yet."""
    used = UsageDay.objects.filter(tenant=tenant).aggregate(total=Sum("cost_pico"))["total"]
    given = AdjustmentNote.objects.filter(tenant=tenant).aggregate(total=Sum("grant__amount_pico"))
    issued = Invoice.objects.filter(tenant=tenant, state=Invoice.State.FINALISED)
    on_them = issued.aggregate(total=Sum(F("usage_pico") + F("adjusted_pico")))["total"]
    return int(used or 0) - int(given["total"] or 0) - int(on_them or 0)
