"""Tax in the ledger, apart from credit: owed, paid or taken back, and its share of a part."""

from billing import ledger
from billing.ledger import AccountKey, Draft, Leg
from billing.models import Transfer
from billing.money import PICO_PER_CENT, half_away


def post(
    *,
    debit: AccountKey,
    credit: AccountKey,
    tax_cents: int,
    code: str,
    key: str,
    tenant_id: int,
    memo: str,
    corrects_id: int | None = None,
) -> Transfer | None:
    """Move tax from one account to another, once per key; None where there is none to move."""
    if not tax_cents:
        return None
    amount_pico = tax_cents * PICO_PER_CENT
    return ledger.post(
        Draft(
            code=code,
            legs=(Leg(debit, amount_pico), Leg(credit, -amount_pico)),
            idempotency_key=key[:100],
            tenant_id=tenant_id,
            memo=memo,
            corrects_id=corrects_id,
        )
    )


def part_cents(*, before: int, after: int, tax_cents: int, total_cents: int) -> int:
    """The tax in what brings a sum in parts from `before` to `after`: the parts add up exactly."""
    shares = [half_away(paid * tax_cents, total_cents) for paid in (before, after)]
    return shares[1] - shares[0]
