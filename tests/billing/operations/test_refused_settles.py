"""What Redis refused to settle is seen, told again and booked once, or let go with a reason."""

import uuid
from datetime import timedelta
from io import StringIO

import pytest
import redis
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.management import CommandError, call_command
from django.test import Client

from billing import registers
from billing.holding import settle_records
from billing.holding.settle_records import REFUSED_STREAM, SettleRecord
from billing.integrity import invariants
from billing.models import AuditEntry, InvariantCheck, RefusedSettle
from billing.operations import refused_settles
from tests.billing import desk as desks
from tests.billing.open_books import Books

COST_PICO = 100 * desks.INPUT_PICO + 10 * desks.OUTPUT_PICO
TOLD = "what was told is booked"
PAGE = "/admin/billing/refusedsettle/"


def hand_over(books: Books, request_id: str, *, why: str = "ERR broken") -> SettleRecord:
    """As a data plane does."""
    desk = books.desk
    body = desks.encode(desk.event(request_id))
    record = SettleRecord(
        tenant=desk.tenant,
        key=desk.key,
        request_id=request_id,
        now_ms=desk.now_ms,
        events=[(body, COST_PICO // 1000)],
    )
    fields = settle_records.refused(record, why)
    desk.client.xadd(REFUSED_STREAM, dict(zip(fields[::2], fields[1::2], strict=True)))
    return record


def told_is_booked(books: Books) -> InvariantCheck:
    invariants.check_all(books.desk.client, now=desks.at(books.desk.now_ms))
    return InvariantCheck.objects.get(name=TOLD)


@pytest.fixture
def refused(books: Books) -> RefusedSettle:
    """Taken up, with its hold still open."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    hand_over(books, request_id)
    assert refused_settles.take_up(books.desk.client, now=desks.at(books.desk.now_ms)) == 1
    return RefusedSettle.objects.get()


def test_it_breaks_the_invariant_until_it_is_booked(books: Books, refused: RefusedSettle) -> None:
    # given
    client, now = books.desk.client, desks.at(books.desk.now_ms)
    assert (refused.tenant_id, refused.charge_pico) == (books.desk.tenant, COST_PICO)
    broken = told_is_booked(books)
    assert not broken.holds
    assert str(refused.pk) in broken.detail
    # when: told twice
    for _ in range(2):
        answers = refused_settles.replay(client, [refused.pk], actor="ann", now=now)
    # then: booked once
    assert answers == {refused.pk: "is not waiting"}
    books.drain()
    (event,) = books.events()
    assert (event.request_id, event.tenant_cost_pico) == (refused.pk, COST_PICO)
    assert books.balance().spent_pico == COST_PICO
    assert told_is_booked(books).holds
    refused.refresh_from_db()
    assert (refused.state, refused.resolved_by) == ("booked", "ann")
    entry = AuditEntry.objects.get(action="refused_settle.resolve")
    assert entry.after == {"state": "booked", "charge_pico": COST_PICO}


def test_one_that_is_handed_over_twice_is_one(books: Books, refused: RefusedSettle) -> None:
    # given / when
    hand_over(books, str(refused.pk))
    refused_settles.take_up(books.desk.client, now=desks.at(books.desk.now_ms))
    # then
    assert RefusedSettle.objects.count() == 1
    assert books.desk.client.xlen(REFUSED_STREAM) == 0


def test_one_that_nobody_can_read_keeps_back_nothing_and_is_told(books: Books) -> None:
    # given
    client, now = books.desk.client, desks.at(books.desk.now_ms)
    client.xadd(REFUSED_STREAM, {"r": b"{", "why": "x"})
    client.xadd(REFUSED_STREAM, {"else": "x"})
    hand_over(books, "no-uuid")
    hand_over(books, books.desk.placed())
    # when
    assert refused_settles.take_up(client, now=now) == 4
    # then
    assert RefusedSettle.objects.count() == 1
    assert not InvariantCheck.objects.get(name=refused_settles.UNREADABLE).holds


def test_what_is_refused_again_goes_on_waiting_and_says_why(
    books: Books, refused: RefusedSettle
) -> None:
    # given
    desk = books.desk
    key = registers.tenant_key(desk.tag, desk.tenant)
    before = desk.client.hgetall(key)
    desk.client.hset(key, "spent", "nonsense")
    # when
    refused_settles.replay(desk.client, [refused.pk], actor="ann", now=desks.at(desk.now_ms))
    # then
    refused.refresh_from_db()
    assert refused.state == "waiting"
    assert "not a whole number below 2^52: spent" in refused.reason
    assert desk.client.hgetall(key) == {**before, b"spent": b"nonsense"}
    assert AuditEntry.objects.filter(action="refused_settle.resolve").count() == 0


def test_a_redis_that_is_not_well_changes_nothing(books: Books, refused: RefusedSettle) -> None:
    # given
    desk = books.desk
    desk.client.config_set("maxmemory", 1)
    # when
    try:
        with pytest.raises(redis.ResponseError):
            refused_settles.replay(desk.client, [refused.pk], actor="a", now=desks.at(desk.now_ms))
    finally:
        desk.client.config_set("maxmemory", 0)
    # then
    refused.refresh_from_db()
    assert (refused.state, refused.reason) == ("waiting", "ERR broken")


def test_an_expiry_that_redis_has_forgotten_is_not_charged_twice(
    books: Books, refused: RefusedSettle
) -> None:
    # given: charged by its expiry, and told again a week later
    desk = books.desk
    desk.now_ms += 60_000
    assert desk.expire(str(refused.pk))
    books.drain()
    spent_pico = books.balance().spent_pico
    # when
    later = desks.at(desk.now_ms) + timedelta(days=7)
    answers = refused_settles.replay(desk.client, [refused.pk], actor="ann", now=later)
    # then
    assert answers[refused.pk].startswith("its expiry was charged already")
    books.drain()
    assert books.balance().spent_pico == spent_pico


def test_the_command_tells_all_that_wait(books: Books, refused: RefusedSettle) -> None:
    # given: one more, still on its way
    other = books.desk.placed(hold_nano=1_000_000)
    hand_over(books, other)
    # when
    out = StringIO()
    call_command("replay_refused", stdout=out)
    # then
    assert "2 of 2 booked" in out.getvalue()
    books.drain()
    assert {event.request_id for event in books.events()} == {refused.pk, uuid.UUID(other)}


def test_the_command_fails_where_one_is_refused_again(books: Books, refused: RefusedSettle) -> None:
    books.desk.client.hset(registers.tenant_key(books.desk.tag, books.desk.tenant), "spent", "x")
    with pytest.raises(CommandError, match="still refused"):
        call_command("replay_refused", stdout=StringIO())


def test_an_operator_tells_again_on_the_page(
    books: Books, refused: RefusedSettle, admin_client: Client
) -> None:
    # given
    page = admin_client.get(PAGE).content.decode()
    assert "$0.00028" in page
    assert "Served and not booked" in admin_client.get("/admin/").content.decode()
    # when
    chosen = {"action": "tell_again", ACTION_CHECKBOX_NAME: str(refused.pk)}
    assert admin_client.post(PAGE, chosen).status_code == 302
    # then
    refused.refresh_from_db()
    assert refused.state == "booked"


def test_an_operator_lets_go_with_a_reason(
    books: Books, refused: RefusedSettle, admin_client: Client
) -> None:
    # given
    chosen = {"action": "let_go", ACTION_CHECKBOX_NAME: str(refused.pk)}
    # when: without a reason
    page = admin_client.post(PAGE, {**chosen, "_confirm": "1"})
    assert (page.status_code, RefusedSettle.objects.get().state) == (200, "waiting")
    # and with one
    admin_client.post(PAGE, {**chosen, "_confirm": "1", "reason": "a test of ours"})
    # then
    refused.refresh_from_db()
    assert refused.state == "let_go"
    assert AuditEntry.objects.get(action="refused_settle.resolve").reason == "a test of ours"
    assert told_is_booked(books).holds
    books.drain()
    assert books.events() == []
