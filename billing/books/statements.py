"""The books as an accountant reads them: a trial balance, and what one account's entries were.

Accounts are shown as in any ledger, debits left and credits right. Every figure is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Sum

from billing.books import ledger
from billing.books.ledger import AccountKey
from billing.models import Account, AccountSum, Entry, Transfer

Kind = Account.Kind

MEANINGS: Final[Mapping[str, str]] = {
    Kind.TENANT_CREDIT: "what we owe tenants: credit not yet used",
    Kind.CASH: "money received for credit",
    Kind.PROMO_EXPENSE: "credit given away",
    Kind.REVENUE: "what tenants were charged",
    Kind.PROVIDER_PAYABLE: "what we owe suppliers, our own workers included",
    Kind.COST_OF_SALES: "what suppliers charged for paid requests",
    Kind.PROVIDER_WASTE: "what suppliers charged for attempts that nobody pays for",
    Kind.SUPPLIER_EXPOSURE: "may still be billed to us: holds that expired",
    Kind.OVERAGE_REVIEW: "reported above a hold, for review",
    Kind.ROUNDING: "parts of a cent that invoices round away",
    Kind.RECEIVABLE: "tax that was invoiced and is not paid",
    Kind.TAX_PAYABLE: "tax that we owe",
    Kind.BREAKAGE: "bought credit that expired unused",
}
ENTRIES_SHOWN_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class BalanceRow:
    kind: str
    meaning: str
    accounts: int
    balance_pico: int


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """All accounts by kind. `debit_pico` and `credit_pico` are equal, or the books are broken."""

    rows: Sequence[BalanceRow]
    debit_pico: int
    credit_pico: int

    @property
    def is_balanced(self) -> bool:
        return self.debit_pico == self.credit_pico


def trial_balance() -> TrialBalance:
    sums = dict(
        AccountSum.objects.values_list("account").annotate(total=Sum("amount_pico")).order_by()
    )
    by_kind: dict[str, list[int]] = {}
    for pk, kind in Account.objects.values_list("pk", "kind"):
        by_kind.setdefault(kind, []).append(int(sums.get(pk, 0)))
    balances = [balance for found in by_kind.values() for balance in found]
    return TrialBalance(
        rows=[
            BalanceRow(Kind(kind).label, MEANINGS[kind], len(found), sum(found))
            for kind in Kind.values
            if (found := by_kind.get(kind))
        ],
        debit_pico=sum(balance for balance in balances if balance > 0),
        credit_pico=-sum(balance for balance in balances if balance < 0),
    )


@dataclass(frozen=True, slots=True)
class StatementLine:
    transfer: Transfer
    at: datetime
    amount_pico: int
    balance_pico: int


@dataclass(frozen=True, slots=True)
class Statement:
    """The newest entries of an account, newest first, each with the balance after it.

    `before_pico` is the balance before the oldest line; 0 if nothing lies before it.
    """

    balance_pico: int
    lines: Sequence[StatementLine]
    before_pico: int


def statement(account: Account) -> Statement:
    balance_pico = after = ledger.balance(
        AccountKey(account.kind, account.tenant_id, account.supplier)
    )
    lines = []
    newest = Entry.objects.filter(account=account).select_related("transfer", "transfer__tenant")
    for entry in newest.order_by("-pk")[:ENTRIES_SHOWN_MAX]:
        amount = int(entry.amount_pico)
        lines.append(StatementLine(entry.transfer, entry.transfer.created_at, amount, after))
        after -= amount
    return Statement(balance_pico, lines, after)
