"""Which charges an invoice covers: each exactly once, however late it was posted.

An invoice reaches up to a moment (its period's end) and up to a transfer (the last one posted when
it was made), and covers what its predecessor did not. Ids of transfers are given out in order
within a tenant, because both writers, drains and resolutions, are kept out while the last one is
looked up.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import Max

from billing import locks, registers
from billing.models import Invoice, Tenant, Transfer

LOCK_WAIT_S: Final = 5.0
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Bound to the columns of a usage event `u`; parameters by name, from `Coverage.parameters`.
COVERED_SQL: Final = """
    u.tenant_id = %(tenant)s AND u.state = 'posted'
    AND u.occurred_at < %(end)s AND u.transfer_id <= %(upto)s
    AND NOT (u.occurred_at < %(from_end)s AND u.transfer_id <= %(from_upto)s)
"""


@dataclass(frozen=True, slots=True)
class Coverage:
    tenant_id: int
    start: datetime
    end: datetime
    upto_transfer: int
    from_end: datetime
    from_transfer: int

    @property
    def parameters(self) -> dict[str, int | datetime]:
        return {
            "tenant": self.tenant_id,
            "start": self.start,
            "end": self.end,
            "upto": self.upto_transfer,
            "from_end": self.from_end,
            "from_upto": self.from_transfer,
        }


def of_invoice(invoice: Invoice) -> Coverage:
    return Coverage(
        tenant_id=invoice.tenant_id,
        start=invoice.period_start,
        end=invoice.period_end,
        upto_transfer=invoice.upto_transfer,
        from_end=invoice.from_end,
        from_transfer=invoice.from_transfer,
    )


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


def predecessor(tenant: Tenant, before: datetime) -> Invoice | None:
    """The last invoice of an earlier period; a void one keeps its charges for its successor."""
    return (
        Invoice.objects.filter(tenant=tenant, period_start__lt=before)
        .exclude(state=Invoice.State.DRAFT)
        .order_by("-period_start", "-pk")
        .first()
    )
