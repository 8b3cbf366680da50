"""A check goes on behind what it has read, also while something is wrong."""

import pytest
from django.db import connection, transaction

from billing.integrity import invariants, new_rows
from billing.models import InvariantCheck, Transfer, UsageEvent
from tests.billing import desk as desks
from tests.billing.altering import execute
from tests.billing.open_books import Books

POSTED = "each posted event is in exactly one transfer"


def served(books: Books, count: int) -> None:
    for _ in range(count):
        books.served()
    books.drain()


def break_one(books: Books) -> int:
    """The id of an event that is in no transfer any more."""
    event = UsageEvent.objects.latest("pk")
    execute("billing_usageevent", f"UPDATE billing_usageevent SET transfer_id = NULL WHERE id = {event.pk}")  # fmt: skip # noqa: E501
    return event.pk


def check(books: Books) -> dict[str, str]:
    invariants.check_all(books.desk.client, now=desks.at(books.desk.now_ms))
    broken = InvariantCheck.objects.filter(holds=False, name__in=new_rows.PROMISES)
    return dict(broken.values_list("name", "detail"))


def events_touched() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
            " FROM pg_stat_xact_user_tables WHERE relname = 'billing_usageevent'"
        )
        return int(cursor.fetchone()[0])


def rows_read(books: Books) -> int:
    """How many events the next check touches, as PostgreSQL counts them."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
        before = events_touched()
        new_rows.check(POSTED, now=desks.at(books.desk.now_ms))
        return events_touched() - before


def test_a_fault_stays_and_what_was_read_is_not_read_again(books: Books) -> None:
    # given: a fault among 40 events of an hour ago
    served(books, 40)
    broken = break_one(books)
    assert check(books)[POSTED] == f"{broken} None"
    # when: in the runs that follow, for hours
    for _ in range(3):
        books.desk.now_ms += 3_600_000
        check(books)
        books.desk.now_ms += 3_600_000
        served(books, 1)
        # then: the broken one and the new one, each found and then read
        assert rows_read(books) <= 4
        assert check(books)[POSTED] == f"{broken} None"


def test_a_fault_is_over_when_its_row_is_right(books: Books) -> None:
    # given
    served(books, 2)
    event = UsageEvent.objects.latest("pk")
    break_one(books)
    assert POSTED in check(books)
    books.desk.now_ms += 3_600_000
    assert POSTED in check(books)
    # when
    execute(
        "billing_usageevent",
        f"UPDATE billing_usageevent SET transfer_id = {event.transfer_id} WHERE id = {event.pk}",
    )
    # then
    assert check(books) == {}
    assert InvariantCheck.objects.get(name=POSTED).broken_ids == []


def test_a_second_fault_is_found_beside_the_first(books: Books) -> None:
    # given
    served(books, 1)
    first = break_one(books)
    check(books)
    # when
    books.desk.now_ms += 3_600_000
    served(books, 1)
    second = break_one(books)
    # then
    assert check(books)[POSTED] == f"{first} None; {second} None"


def test_so_many_that_they_cannot_be_remembered_lose_none(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(new_rows, "BROKEN_MAX", 2)
    served(books, 4)
    transfers = dict(UsageEvent.objects.values_list("pk", "transfer_id"))
    execute("billing_usageevent", "UPDATE billing_usageevent SET transfer_id = NULL")
    # when: those that are remembered are put right, until none is left
    found: set[int] = set()
    while POSTED in check(books):
        ids = InvariantCheck.objects.get(name=POSTED).broken_ids
        assert 0 < len(ids) <= 2
        found |= set(ids)
        for pk in ids:
            execute(
                "billing_usageevent",
                f"UPDATE billing_usageevent SET transfer_id = {transfers[pk]} WHERE id = {pk}",
            )
    # then
    assert found == set(transfers)


def test_old_and_new_faults_that_cannot_be_remembered_together_lose_none(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: three that are known, and three new ones where there is room for four
    monkeypatch.setattr(new_rows, "BROKEN_MAX", 4)
    broken = set()
    for apart_ms in (0, 1_200_000):
        for _ in range(3):
            books.desk.now_ms += apart_ms
            served(books, 1)
            broken.add(break_one(books))
        check(books)
        books.desk.now_ms += 3_600_000
        check(books)
    # when: those that are remembered are put right, long after
    found: set[int] = set()
    while POSTED in check(books):
        ids = set(InvariantCheck.objects.get(name=POSTED).broken_ids) - found
        assert ids
        found |= ids
        for pk in ids:
            transfer = Transfer.objects.filter(code="usage").latest("pk").pk
            execute(
                "billing_usageevent",
                f"UPDATE billing_usageevent SET transfer_id = {transfer} WHERE id = {pk}",
            )
        books.desk.now_ms += 3_600_000
    # then
    assert found == broken


def test_what_is_behind_is_caught_up_in_bounded_runs(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: one event a minute for a while, the newest of them broken
    for _ in range(40):
        books.desk.now_ms += 60_000
        served(books, 1)
    broken = break_one(books)
    monkeypatch.setattr(new_rows, "ROWS_MAX", 10)
    # when
    runs = [POSTED in check(books) for _ in range(5)]
    # then
    assert runs == [False, False, False, True, True]
    assert InvariantCheck.objects.get(name=POSTED).broken_ids == [broken]
    assert Transfer.objects.count() > 0
