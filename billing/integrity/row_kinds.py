"""Which rows of money are sealed by `row_seals`, and what of each is a fact that never changes.

Most kinds only ever come to the end of their table and are sealed by ranges of ids. A document is
sealed by itself, with all its parts, once it is issued; a quarantined event once it is decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from billing.integrity.seal_statements import (
    ENTRY_FACTS,
    EVENT_FACTS,
    TRANSFER_FACTS,
    hashed,
    of_columns,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows r of a table, or others p that belong to them, and the columns that are hashed."""

    source: str
    facts: str


@dataclass(frozen=True, slots=True)
class RowKind:
    """`final` says of which rows r of the table nothing changes any more."""

    table: str
    parts: tuple[Part, ...]
    final: str = "true"
    one_by_one: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> str:
        """Of ranges s (id, first, after): the hash of each final row in one, and of its parts."""
        return " UNION ALL ".join(
            f"SELECT s.id AS seal, {hashed(part.facts)} AS hash FROM s"
            f" JOIN {self.table} r ON r.id >= s.first AND r.id < s.after AND {self.final}"
            f" {part.source}"
            for part in self.parts
        )


def _facts(alias: str, names: str) -> str:
    """PostgreSQL hashes a numeric without its sign: so that is a fact of its own."""
    sums = [name for name in names.split(", ") if name.endswith("_pico") or name == "amount"]
    return ", ".join([of_columns(alias, names), *(f"{alias}.{name} < 0" for name in sums)])


def _only(table: str, facts: str) -> RowKind:
    return RowKind(
        f"billing_{table}", (Part("", _facts("r", facts)),), columns={f"billing_{table}": facts}
    )


def _belonging(table: str, key: str, facts: str) -> Part:
    return Part(f"JOIN billing_{table} p ON p.{key} = r.id", _facts("p", facts))


INVOICE: Final = (
    "id, tenant_id, number, period_start, period_end, time_zone, upto_transfer, replaces_id,"
    " usage_pico, adjusted_pico, covered_pico, subtotal_cents, covered_cents, untaxed_pico,"
    " untaxed_cents, tax_cents, tax_ppm, parties, teams, issued_at, due_on, transfer_id,"
    " created_by, created_at"
)
INVOICE_LINE: Final = (
    "id, invoice_id, position, kind, model, sku, price_version_id, unit, quantity, rate_pico,"
    " exact_pico, amount_cents, service_start, service_end"
)
SPAN: Final = "id, invoice_id, tenant_id, occurred_from, occurred_until, posted_after, posted_upto"
BILL: Final = (
    "id, supplier, first_day, last_day, file_name, file_format, file_hash, stated_pico,"
    " uploaded_by, uploaded_at, accepted_by, accepted_at, transfer_id"
)
BILL_ROW: Final = (
    "id, bill_id, number, state, why, day, model, input_tokens, output_tokens, amount, currency,"
    " cost_pico, note, decided_by, decided_at"
)
TRUE_UP: Final = (
    "id, request_id, attempt, day, tenant_id, input_tokens, output_tokens, charged_pico, due_pico,"
    " counted_at"
)
KINDS: Final[Mapping[str, RowKind]] = {
    "events": RowKind(
        "billing_usageevent",
        (Part("", of_columns("r", EVENT_FACTS)),),
        # Whoever was ever in quarantine is changed once, when it is decided.
        final="r.quarantine_reason = ''",
        columns={"billing_usageevent": EVENT_FACTS},
    ),
    "decided events": RowKind(
        "billing_usageevent",
        (Part("", of_columns("r", EVENT_FACTS)),),
        final="r.quarantine_reason <> '' AND r.state <> 'quarantined'",
        one_by_one=True,
    ),
    "transfers": RowKind(
        "billing_transfer",
        (
            Part("", _facts("r", "id, " + TRANSFER_FACTS)),
            _belonging("entry", "transfer_id", ENTRY_FACTS),
        ),
        columns={"billing_transfer": "id, " + TRANSFER_FACTS, "billing_entry": ENTRY_FACTS},
    ),
    "grants": _only(
        "creditgrant",
        "id, tenant_id, amount_pico, kind, expires_at, expires_id, reason, transfer_id,"
        " created_by, created_at",
    ),
    "uses of grants": _only("grantuse", "id, grant_id, amount_pico, until"),
    "untaxed credit": _only("untaxedcredit", "id, grant_id, amount_pico"),
    "credit notes": _only(
        "creditnote",
        "id, invoice_id, number, reason, net_cents, tax_cents, settled_net_cents,"
        " settled_tax_cents, grant_id, tax_grant_id, transfer_id, created_by, issued_at",
    ),
    "payments": _only(
        "payment",
        "id, invoice_id, amount_cents, reference, received_on, grant_id, transfer_id, created_by,"
        " created_at",
    ),
    "receipts": _only(
        "receipt",
        "id, topup_id, number, parties, tax_ppm, payment_reference, net_cents, tax_cents,"
        " issued_at",
    ),
    "refunds": _only(
        "refund",
        "id, cause, topup_id, number, receipt, parties, tax_ppm, payment_reference, net_cents,"
        " tax_cents, issued_at",
    ),
    "adjustment notes": _only(
        "adjustmentnote",
        "id, tenant_id, number, cause, reason, grant_id, months, parties, issued_at",
    ),
    "corrections": _only(
        "adjustment", "id, re_rating_id, tenant_id, events, charged_pico, corrected_pico, grant_id"
    ),
    "true-ups": RowKind(
        "billing_trueup",
        (Part("", _facts("r", TRUE_UP)),),
        # Its note comes later, once; the note and its sum are sealed themselves.
        columns={"billing_trueup": TRUE_UP + ", note_id"},
    ),
    "price corrections": _only(
        "rerating",
        "id, sku, service_tier, context_over, from_minute, to_minute, since, until, rates,"
        " charges_more, replaces_id, reason, created_by, created_at",
    ),
    "scales of rebates": _only(
        "rebatescale", "id, plan_id, from_month, mode, tiers, recorded_by, recorded_at"
    ),
    "rebates": _only(
        "volumerebate", "id, tenant_id, month, scale_id, spent_pico, due_pico, grant_id"
    ),
    "skus": _only("sku", "id, code"),
    "accounts": _only("account", "id, kind, tenant_id, supplier"),
    # Of rows that may change: `row_versions`.
    "versions": _only("rowversion", "id, table_name, row_id, facts, kept_at"),
    "payouts": _only(
        "payout",
        "id, supplier, amount_cents, reference, paid_on, transfer_id, created_by, created_at",
    ),
    "invoices": RowKind(
        "billing_invoice",
        (
            Part("", _facts("r", INVOICE)),
            _belonging("invoiceline", "invoice_id", INVOICE_LINE),
            _belonging("coveredspan", "invoice_id", SPAN),
        ),
        final="r.state <> 'draft'",
        one_by_one=True,
        columns={
            # Voiding says so in these, and nothing else.
            "billing_invoice": INVOICE + ", state, void_reason",
            "billing_invoiceline": INVOICE_LINE,
            "billing_coveredspan": SPAN + ", is_live",
        },
    ),
    "providers' bills": RowKind(
        "billing_providerbill",
        (
            Part("", _facts("r", BILL)),
            _belonging("providerbillrow", "bill_id", BILL_ROW),
        ),
        final="r.accepted_at IS NOT NULL",
        one_by_one=True,
        columns={"billing_providerbill": BILL, "billing_providerbillrow": BILL_ROW},
    ),
}
