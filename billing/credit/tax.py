"""Tax in the ledger, apart from credit: owed, paid or taken back, and its share of a part."""

from billing.books import ledger
from billing.books.ledger import AccountKey, Draft, Leg
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


def refusal(*, tax_ppm: int, tax_id: str, is_reverse_charge: bool, tax_note: str) -> str:
    """Why documents may not be taxed by these terms; empty where they may."""
    if not is_reverse_charge:
        return (
            "a note cannot shift the tax to the buyer: choose reverse charge"
            if "reverse charge" in " ".join(tax_note.lower().replace("-", " ").split())
            else ""
        )
    if tax_ppm:
        return "under reverse charge the buyer owes the tax: charge none"
    if not any(letter.isdigit() for letter in tax_id):
        return "reverse charge needs the buyer's VAT id"
    return ""


def part_cents(*, before: int, after: int, tax_cents: int, total_cents: int) -> int:
    """The tax in what brings a sum in parts from `before` to `after`: the parts add up exactly."""
    shares = [half_away(paid * tax_cents, total_cents) for paid in (before, after)]
    return shares[1] - shares[0]
