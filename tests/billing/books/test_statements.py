"""The books as an accountant reads them: balanced, and each statement ends at its balance."""

from billing.books import ledger, statements
from billing.books.ledger import Kind
from billing.models import Account, AccountSum, Transfer
from tests.billing.open_books import Books


def test_debits_equal_credits_after_every_kind_of_posting(books: Books) -> None:
    for _ in range(3):
        books.served(supplier_pico=280_000_000)
    books.drain()

    trial = statements.trial_balance()

    assert trial.is_balanced
    assert trial.debit_pico == sum(max(_balance(account), 0) for account in Account.objects.all())
    assert sum(row.balance_pico for row in trial.rows) == 0
    assert sum(row.accounts for row in trial.rows) == Account.objects.count()
    assert set(statements.MEANINGS) == set(Kind.values)


def test_a_statement_leads_from_the_balance_before_to_the_balance_now(books: Books) -> None:
    # given: an account with more entries than a page shows
    shown = statements.ENTRIES_SHOWN_MAX
    for _ in range(shown + 3):
        books.served(supplier_pico=280_000_000)
        books.drain()
    account = Account.objects.get(kind=Kind.PROVIDER_PAYABLE)
    # when
    found = statements.statement(account)
    # then
    assert len(found.lines) == shown
    assert found.balance_pico == _balance(account) == found.lines[0].balance_pico
    assert found.before_pico == 3 * -280_000_000
    for newer, older in zip(found.lines, found.lines[1:], strict=False):
        assert newer.balance_pico - newer.amount_pico == older.balance_pico


def _balance(account: Account) -> int:
    rows = AccountSum.objects.filter(account=account).values_list("amount_pico", flat=True)
    return sum(map(int, rows))


def test_a_transfer_is_worth_its_charge_and_not_both_debits(books: Books) -> None:
    # given: the tenant pays 280,000,000, the supplier asks 99,000,000
    books.served(supplier_pico=99_000_000)
    books.drain()
    # when
    usage = Transfer.objects.get(code="usage")
    given = Transfer.objects.get(code="grant")
    # then
    assert ledger.charge_pico(usage.entries.select_related("account")) == 280_000_000
    assert ledger.charge_pico(given.entries.select_related("account")) == 10**12
