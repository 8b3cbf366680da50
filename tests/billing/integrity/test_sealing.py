"""Audited blocks: sealed once full and sound, added up after, and read again now and then."""

from datetime import timedelta
from importlib import import_module

import psycopg
import pytest
from django.db import connection, transaction

from billing.integrity import invariants, seal_statements, sealing
from billing.integrity.seal_statements import BLOCK
from billing.models import EntrySeal, EventSeal, Finding, InvariantCheck, UsageEvent
from billing.operations import quarantine
from tests.billing import desk as desks
from tests.billing.open_books import Books

COST_PICO = 280_000_000


@pytest.fixture
def ends_of_blocks(books: Books) -> None:
    """The next event and the next transfer are the last of their blocks."""
    with connection.cursor() as cursor:
        for table in ("billing_usageevent", "billing_transfer"):
            # A block of their own, behind all ids that were ever given out.
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%(table)s, 'id'), %(block)s * (2 +"
                " nextval(pg_get_serial_sequence(%(table)s, 'id')) / %(block)s) - 2)",
                {"table": table, "block": BLOCK},
            )


def audit(books: Books, *, days: int = 0, everything: bool = False) -> list[str]:
    """The promises that do not hold, that many days later."""
    now = desks.at(books.desk.now_ms) + timedelta(days=days)
    invariants.audit(books.desk.client, now=now, everything=everything)
    return list(InvariantCheck.objects.filter(holds=False).values_list("name", flat=True))


def drained(books: Books) -> None:
    """One event and transfer before the end of a block, and one behind it."""
    for _ in range(2):
        books.served()
        books.drain()


def tampered(books: Books, change: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_usageevent DISABLE TRIGGER USER")
        cursor.execute(
            f"UPDATE billing_usageevent SET {change}"
            " WHERE id = (SELECT min(id) FROM billing_usageevent)"
        )
        cursor.execute("ALTER TABLE billing_usageevent ENABLE TRIGGER USER")


@pytest.mark.usefixtures("ends_of_blocks")
def test_a_full_block_is_sealed_once_and_counts_from_then_on(books: Books) -> None:
    # given
    drained(books)
    # when
    once, again = audit(books), audit(books)
    # then
    assert (once, again) == ([], [])
    (seal,) = EventSeal.objects.all()
    first = UsageEvent.objects.earliest("id")
    assert (seal.block, seal.attempts, seal.requests) == (first.pk // BLOCK, 1, 1)
    assert [int(seal.cost_pico), int(seal.debited_pico)] == [COST_PICO, COST_PICO]
    assert first.transfer_id is not None
    assert EntrySeal.objects.filter(block=first.transfer_id // BLOCK, code="usage").count() == 2


def test_a_block_that_is_not_full_is_read_each_time(books: Books) -> None:
    # given
    drained(books)
    assert audit(books) == []
    assert EventSeal.objects.count() == 0
    # when
    tampered(books, "supplier_cost_pico = supplier_cost_pico + 1")
    # then
    assert "usage sums equal their events" in audit(books)


@pytest.mark.usefixtures("ends_of_blocks")
@pytest.mark.parametrize(
    ("table", "seal"), [("billing_usageevent", EventSeal), ("billing_transfer", EntrySeal)]
)
def test_a_block_is_not_sealed_while_somebody_may_have_one_of_its_ids(
    books: Books,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    seal: type[EventSeal] | type[EntrySeal],
) -> None:
    # given
    monkeypatch.setattr(sealing, "WAIT_S", 0.1)
    drained(books)
    at = connection.settings_dict
    # when
    with psycopg.connect(host=at["HOST"], user=at["USER"], dbname=at["NAME"]) as other:
        other.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        meanwhile = audit(books)
        sealed = seal.objects.count()
    after = audit(books)
    # then
    assert (meanwhile, sealed, after) == ([], 0, [])
    assert seal.objects.count() > 0


@pytest.mark.usefixtures("ends_of_blocks")
def test_a_sealed_row_that_was_altered_is_found_when_its_block_is_read_again(books: Books) -> None:
    # given
    drained(books)
    audit(books)
    # when
    tampered(books, "supplier_cost_pico = supplier_cost_pico + 1")
    # then
    assert sealing.AS_SEALED in audit(books, everything=True)


@pytest.mark.usefixtures("ends_of_blocks")
def test_a_sealed_row_that_was_altered_stays_found(books: Books) -> None:
    # given
    drained(books)
    audit(books)
    tampered(books, "supplier_cost_pico = supplier_cost_pico + 1")
    # when
    found = [audit(books, days=day) for day in range(1, sealing.AUDITS_PER_ROUND + 1)]
    # then
    assert [sealing.AS_SEALED in broken for broken in found] == [True] * len(found)
    assert set(Finding.objects.values_list("what", flat=True)) == {"events", "block of events"}
    # Resolved, the block is sealed anew.
    sealing.resolve(
        list(Finding.objects.values_list("pk", flat=True)),
        reason="seen",
        resolved_by="ada",
        now=desks.at(books.desk.now_ms),
    )
    assert EventSeal.objects.count() == 0


@pytest.mark.usefixtures("ends_of_blocks")
def test_a_block_that_breaks_a_promise_stays_open_and_is_told_each_time(books: Books) -> None:
    # given
    drained(books)
    tampered(books, "transfer_id = NULL")
    # when
    once, again = audit(books), audit(books)
    # then
    assert "each posted event is in exactly one transfer" in once
    assert once == again
    assert EventSeal.objects.count() == 0


@pytest.mark.usefixtures("ends_of_blocks")
def test_resolving_an_event_moves_its_seal(books: Books) -> None:
    # given: quarantined, in a sealed block
    books.served(cost_pico=COST_PICO + 1_000_000)
    books.drain()
    books.served()
    books.drain()
    assert audit(books) == []
    event = UsageEvent.objects.get(state="quarantined")
    assert EventSeal.objects.get().debited_pico == event.charged_nano * 1_000
    # when
    quarantine.resolve_all(
        books.desk.client,
        event_ids=[event.pk],
        tenant_pico=1_000,
        supplier_pico=7,
        resolved_by="alice",
        reason="seen",
        now=desks.at(books.desk.now_ms),
    )
    # then
    assert audit(books, everything=True) == []
    seal = EventSeal.objects.get()
    moved = [seal.cost_pico, seal.supplier_cost_pico, seal.debited_pico]
    assert [int(pico) for pico in moved] == [1_000, 7, 1_000]


def swapped(table: str, *columns: str) -> None:
    """Two rows exchange what they say, past the triggers: every sum stays what it was."""
    sets = ", ".join(f"{column} = other.{column}" for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(
            f"WITH two AS (SELECT * FROM {table} ORDER BY id LIMIT 2) UPDATE {table} row"
            f" SET {sets} FROM two other"
            " WHERE row.id IN (SELECT id FROM two) AND other.id <> row.id"
        )
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@pytest.fixture
def two_sealed(books: Books) -> Books:
    """Two events of one tenant and day that cost different sums, in a sealed block."""
    with connection.cursor() as cursor:
        for table, ahead in (("billing_usageevent", 3), ("billing_transfer", 2)):
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%(table)s, 'id'), %(block)s * (2 +"
                " nextval(pg_get_serial_sequence(%(table)s, 'id')) / %(block)s) - %(ahead)s)",
                {"table": table, "block": BLOCK, "ahead": ahead},
            )
    books.served(supplier_pico=5)
    books.served(supplier_pico=7)
    books.drain()
    books.served()
    books.drain()
    assert audit(books) == []
    assert EventSeal.objects.get().attempts == 2
    return books


@pytest.mark.parametrize(
    "columns",
    [("supplier_cost_pico",), ("supplier_cost_pico", "input_tokens", "settled_at")],
)
def test_amounts_swapped_between_two_events_are_found(
    two_sealed: Books, columns: tuple[str, ...]
) -> None:
    # given: a swap that leaves every sum of the tenant's day as it was
    before = list(EventSeal.objects.values())
    # when
    swapped("billing_usageevent", *columns)
    # then
    assert audit(two_sealed, everything=True) == [sealing.AS_SEALED]
    assert list(EventSeal.objects.values()) == before


def test_what_no_sum_shows_is_found_in_the_ledger_too(two_sealed: Books) -> None:
    # when: a reason is rewritten
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_transfer DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE billing_transfer SET memo = 'as agreed' WHERE id ="
            " (SELECT min(transfer_id) FROM billing_usageevent)"
        )
        cursor.execute("ALTER TABLE billing_transfer ENABLE TRIGGER USER")
    # then
    assert audit(two_sealed, everything=True) == [sealing.AS_SEALED]


def test_a_seal_without_a_digest_gets_one_when_its_block_is_read_again(two_sealed: Books) -> None:
    # given: seals as they were made before
    for seals in (EventSeal, EntrySeal):
        seals.objects.update(digest=None)
    # when
    for day in range(1, sealing.AUDITS_PER_ROUND + 1):
        assert audit(two_sealed, days=day) == []
    # then
    assert not EventSeal.objects.filter(digest=None).exists()
    assert not EntrySeal.objects.filter(digest=None).exists()
    swapped("billing_usageevent", "supplier_cost_pico")
    assert audit(two_sealed, everything=True) == [sealing.AS_SEALED]


def test_a_block_that_was_altered_before_it_had_a_digest_gets_none(two_sealed: Books) -> None:
    # given
    EventSeal.objects.update(digest=None)
    tampered(two_sealed, "supplier_cost_pico = supplier_cost_pico + 1")
    # when / then
    assert sealing.AS_SEALED in audit(two_sealed, everything=True)
    assert EventSeal.objects.get().digest is None


def test_a_digest_does_not_depend_on_who_asks(two_sealed: Books) -> None:
    # The connection is pooled: whatever is set here ends with the transaction.
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL TIME ZONE 'Asia/Kathmandu'")
            cursor.execute("SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = -3")
        assert audit(two_sealed, everything=True) == []


def test_the_trigger_hashes_what_the_audit_hashes() -> None:
    moved = import_module("billing.migrations.0026_seal_digests")
    assert moved.FACTS == seal_statements.EVENT_FACTS
    # A new column is a fact too, or is left out here on purpose.
    assert {field.column for field in UsageEvent._meta.fields} == set(moved.FACTS.split(", "))
