"""Posts balanced transfers; the only writer of accounts, transfers and entries.

An amount is positive where it debits its account. Entries of one transfer sum to zero, here and
again in PostgreSQL. House accounts are never locked: a balance is a projection of entries.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Q, Sum

from billing.errors import UnbalancedTransfer
from billing.models import Account, AccountSum, Entry, Transfer

Kind = Account.Kind
Code = Transfer.Code


class AccountKey(NamedTuple):
    kind: str
    tenant_id: int | None = None
    supplier: str = ""


class Leg(NamedTuple):
    account: AccountKey
    amount_pico: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A transfer to be posted. A given `transfer_id` was taken from `new_ids`."""

    code: str
    legs: Sequence[Leg]
    idempotency_key: str
    tenant_id: int | None = None
    memo: str = ""
    corrects_id: int | None = None
    transfer_id: int | None = None


def new_ids(count: int) -> list[int]:
    """Transfer ids for rows that must name their transfer before it is written, in the caller's
    transaction. Its lock tells an audit that ids are taken whose transfers are to come."""
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE billing_transfer IN ROW EXCLUSIVE MODE")
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence('billing_transfer', 'id'))"
            " FROM generate_series(1, %s)",
            [count],
        )
        return [row[0] for row in cursor.fetchall()]


def post(draft: Draft) -> Transfer:
    """Post one transfer; the same idempotency key again returns the first one."""
    with transaction.atomic():
        known = Transfer.objects.filter(idempotency_key=draft.idempotency_key).first()
        return known or post_all([draft])[0]


def post_all(drafts: Sequence[Draft]) -> list[Transfer]:
    """Post many transfers in the caller's transaction."""
    merged = [_merged(draft) for draft in drafts]
    ids = _account_ids(key for entries in merged for key in entries)
    transfers = Transfer.objects.bulk_create(
        Transfer(
            pk=draft.transfer_id,
            code=draft.code,
            tenant_id=draft.tenant_id,
            memo=draft.memo,
            corrects_id=draft.corrects_id,
            idempotency_key=draft.idempotency_key,
        )
        for draft in drafts
    )
    Entry.objects.bulk_create(
        Entry(transfer=transfer, account_id=ids[key], amount_pico=amount)
        for transfer, entries in zip(transfers, merged, strict=True)
        for key, amount in entries.items()
    )
    return transfers


def _merged(draft: Draft) -> dict[AccountKey, int]:
    """One entry per account; two at least, so that even a transfer of nothing is balanced."""
    amounts: dict[AccountKey, int] = defaultdict(int)
    for account, amount_pico in draft.legs:
        amounts[account] += amount_pico
    if sum(amounts.values()) != 0 or len(amounts) < 2:
        raise UnbalancedTransfer(f"{draft.idempotency_key}: {dict(amounts)}")
    moved = {key: amount for key, amount in amounts.items() if amount}
    return moved or dict(amounts)


def _account_ids(keys: Iterable[AccountKey]) -> Mapping[AccountKey, int]:
    wanted = set(keys)
    found = _find_accounts(wanted)
    missing = wanted - found.keys()
    if missing:
        # Whoever else makes the same account at the same time wins or loses; both then find it.
        Account.objects.bulk_create(
            (Account(**key._asdict()) for key in sorted(missing, key=str)), ignore_conflicts=True
        )
        found |= _find_accounts(missing)
    return found


def _find_accounts(keys: set[AccountKey]) -> dict[AccountKey, int]:
    tenants = {key.tenant_id for key in keys}
    rows = Account.objects.filter(
        Q(tenant_id__in=tenants - {None}) | Q(tenant_id=None),
        kind__in={key.kind for key in keys},
        supplier__in={key.supplier for key in keys},
    )
    found = {
        AccountKey(kind, tenant_id, supplier): pk
        for pk, kind, tenant_id, supplier in rows.values_list("pk", "kind", "tenant_id", "supplier")
    }
    return {key: pk for key, pk in found.items() if key in keys}


def charge_pico(entries: Iterable[Entry]) -> int:
    """What a transfer is about: what it moves of its tenant's credit, else what it debits. A usage
    transfer debits the supplier's cost beside the charge; both together are no sum of anything."""
    rows = list(entries)
    credit = [int(row.amount_pico) for row in rows if row.account.kind == Kind.TENANT_CREDIT]
    if credit:
        return abs(sum(credit))
    return sum(int(row.amount_pico) for row in rows if row.amount_pico > 0)


def balance(key: AccountKey) -> int:
    """Debits minus credits of one account, in pico-dollars."""
    accounts = Account.objects.filter(
        Q(tenant_id=key.tenant_id) if key.tenant_id else Q(tenant=None),
        kind=key.kind,
        supplier=key.supplier,
    )
    sums = AccountSum.objects.filter(account__in=accounts)
    return int(sums.aggregate(total=Sum("amount_pico"))["total"] or 0)
