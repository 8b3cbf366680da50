"""Caps of models, providers and sessions, caps that only watch, and overdrafts, on a real Redis."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import registers
from billing.holding import holds, sessions
from billing.holding.holds import Placed, Refused, SettledAttempt, SpendScope
from billing.models import UsageEvent, UsageSession
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.desk import Desk
from tests.billing.open_books import Books

FOX = SpendScope("model", registers.scope_part("acme/fox: 7"), "day", 5_000)
HARE = SpendScope("model", "hare", "day", 5_000)
KEY = SpendScope("key", "5", "day", 10_000)
DAY_MS = registers.MS_PER_DAY


def settle(desk: Desk, request_id: str, charge: int, *not_in: int) -> holds.Settled:
    body = desk.body(request_id, cost_pico=charge * 1000)
    return desk.settle_events(request_id, [SettledAttempt(body, charge, not_in)])


def test_a_hold_over_two_models_is_spent_in_the_one_that_served(desk: Desk) -> None:
    # given
    desk.set_credit(100_000, version=2)
    desk.spend = (KEY, FOX, HARE)
    request_id = desk.placed(hold_nano=1_000)
    assert [desk.spend_register(scope) for scope in desk.spend] == [(0, 1_000)] * 3
    # when
    settle(desk, request_id, 700, 3)
    # then
    assert [desk.spend_register(scope) for scope in desk.spend] == [(700, 0), (700, 0), (0, 0)]
    (entry,) = desk.entries()
    assert "hare" not in entry["k"]
    assert "fox" in entry["k"]


def test_an_expiry_is_spent_in_the_model_of_its_checkpoint(desk: Desk) -> None:
    # given
    desk.set_credit(100_000, version=2)
    desk.spend = (KEY, FOX, HARE)
    request_id = desk.placed(hold_nano=1_000)
    desk.checkpoint(request_id, charge_nano=300, not_in=(2,))
    # when
    desk.now_ms += holds.LEASE_MS
    assert desk.expire(request_id)
    # then
    assert [desk.spend_register(scope) for scope in desk.spend] == [(300, 0), (0, 0), (300, 0)]


def test_a_full_model_s_cap_refuses_by_its_real_name(desk: Desk) -> None:
    desk.set_credit(100_000, version=2)
    desk.spend = (FOX,)
    _, refused = desk.place(hold_nano=5_001)
    assert refused == Refused("over_budget", "model", "acme/fox: 7", "day", 5_000, 5_000, 0)


def test_a_watching_cap_tells_what_it_would_have_refused_and_refuses_nothing(desk: Desk) -> None:
    # given
    desk.set_credit(100_000, version=2)
    watching = SpendScope("key", "5", "day", 1_000, shadow=True)
    desk.spend = (watching,)
    # when
    _, within = desk.place(hold_nano=1_000)
    request_id, beyond = desk.place(hold_nano=1)
    # then
    assert isinstance(within, Placed)
    assert within.shadows == ()
    assert isinstance(beyond, Placed)
    assert beyond.shadows == (("key", "5", "day"),)
    desk.settle(request_id, 1)
    assert desk.spend_register(watching) == (1, 1_000)


def session(name: str = "s1", limit_nano: int = registers.MS_PER_DAY * 10**9) -> SpendScope:
    return SpendScope("session", registers.session_of(71, name), "session", limit_nano)


def test_a_session_tells_its_running_total(desk: Desk) -> None:
    # given
    desk.set_credit(100_000, version=2)
    desk.spend = (KEY, session())
    totals = []
    # when
    for charge in (300, 400):
        request_id, placed = desk.place(hold_nano=1_000)
        assert isinstance(placed, Placed)
        totals.append(placed.session_nano)
        totals.append(desk.settle(request_id, charge).session_nano)
    # then
    assert totals == [0, 300, 300, 700]
    assert desk.settle(request_id, 400).session_nano == 700


def test_a_session_s_cap_refuses_and_names_it(desk: Desk) -> None:
    desk.set_credit(100_000, version=2)
    desk.spend = (session(limit_nano=500),)
    _, refused = desk.place(hold_nano=501)
    assert isinstance(refused, Refused)
    assert (refused.scope_kind, refused.window, refused.left_nano) == ("session", "session", 500)


def test_sessions_are_limited_in_number_and_over_after_a_day(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(holds, "SESSIONS_MAX", 2)
    desk.set_credit(100_000, version=2)
    for name in ("s1", "s2"):
        desk.spend = (session(name),)
        desk.placed(hold_nano=1)
    # when / then
    desk.spend = (session("s3"),)
    before = desks.dump(desk.client)
    _, refused = desk.place(hold_nano=1)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.limit_nano) == ("too_many_sessions", 2)
    assert desks.dump(desk.client) == before
    desk.spend = (session("s2"),)
    desk.placed(hold_nano=1)
    desk.now_ms += DAY_MS
    desk.spend = (session("s3"),)
    desk.placed(hold_nano=1)
    assert desk.client.zcard(registers.sessions_key(desk.tag, desk.tenant)) == 1


def test_one_id_of_two_tenants_is_two_sessions() -> None:
    assert registers.session_of(1, "agent") != registers.session_of(2, "agent")
    assert "agent" not in registers.session_of(1, "agent")


def test_a_rebuild_restores_what_live_sessions_have_cost(books: Books) -> None:
    # given: a session of two calls, and one that nobody called for a day
    name = registers.session_of(books.tenant.pk, "agent")
    scope = SpendScope("session", name, "session", 10**9)
    books.desk.spend = (SpendScope("session", "0" * 32, "session", 10**9),)
    books.served(session="0" * 32)
    books.desk.now_ms += DAY_MS + 60_000
    books.desk.spend = (scope,)
    books.served(session=name)
    books.desk.now_ms += 60_000
    books.served(session=name)
    books.drain()
    before = books.desk.spend_register(scope)
    # when
    found = list(sessions.registers_of([books.tenant.pk], desks.at(books.desk.now_ms)))
    # then
    assert before == (560_000, 0)
    assert [(each.spent_pico, each.lasts_ms) for each in found] == [(560_000_000, DAY_MS)]
    assert found[0].key.endswith(f":session:{name}:session")


def test_a_session_that_was_over_begins_anew_at_a_rebuild(books: Books) -> None:
    # given
    name = registers.session_of(books.tenant.pk, "agent")
    books.desk.spend = (SpendScope("session", name, "session", 10**9),)
    books.served(session=name)
    books.desk.now_ms += DAY_MS + 1
    books.served(session=name)
    books.drain()
    # when
    found = list(sessions.registers_of([books.tenant.pk], desks.at(books.desk.now_ms)))
    # then
    assert [each.spent_pico for each in found] == [280_000_000]


def test_a_session_that_goes_on_for_days_keeps_all_it_has_cost(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: a call every 20 hours, and before them one that ended a day earlier
    name = registers.session_of(books.tenant.pk, "agent")
    books.desk.spend = (SpendScope("session", name, "session", 10**10),)
    books.served(session=name)
    books.desk.now_ms += DAY_MS + 1
    for _ in range(4):
        books.desk.now_ms += 20 * 3_600_000
        books.served(session=name)
    books.drain()
    # when: Redis has lost all
    now = desks.at(books.desk.now_ms)
    books.desk.client.flushall()
    rebuild.rebuild_cold(books.desk.client, now=now)
    # then
    assert books.desk.spend_register(books.desk.spend[0]) == (4 * 280_000, 0)
    # and: sums of what is over go, of what goes on stay
    assert sessions.forget_over(now=now) == 0
    monkeypatch.setattr(sessions, "FORGOTTEN_AT_ONCE", 1)
    assert sessions.forget_over(now=now + timedelta(days=8)) == 4
    assert UsageSession.objects.count() == 0


def test_the_sum_of_a_session_follows_what_becomes_of_its_events(books: Books) -> None:
    # given: one event in quarantine, for what was debited
    name = registers.session_of(books.tenant.pk, "agent")
    books.desk.spend = (SpendScope("session", name, "session", 10**9),)
    request_id = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(request_id, session=name)
    made.tenant_cost_pico += 1
    books.desk.settle_events(request_id, [SettledAttempt(desks.encode(made), 280_001)])
    books.drain()
    held = UsageSession.objects.get().debited_pico
    # when
    (event,) = books.events()
    event.state, event.tenant_cost_pico = UsageEvent.State.POSTED, 70
    event.save()
    # then
    assert (held, UsageSession.objects.get().debited_pico) == (280_001_000, 70)


def test_sessions_of_thirty_thousand_calls_are_rebuilt_from_their_days(books: Books) -> None:
    # given
    books.served(session="s" * 32)
    books.drain()
    copies(30_000)
    now = desks.at(books.desk.now_ms)
    # when
    with CaptureQueriesContext(connection) as asked:
        found = list(sessions.registers_of([books.tenant.pk], now))
    # then
    assert len(found) == 1_001
    assert sum(each.spent_pico for each in found) == 30_001 * 280_000_000
    assert "billing_usageevent" not in " ".join(query["sql"] for query in asked)


def copies(count: int) -> None:
    """Of the one event, in a thousand sessions."""
    columns = [field.column for field in UsageEvent._meta.fields if not field.primary_key]
    own = {
        "request_id": "overlay(request_id::text PLACING lpad(to_hex(n), 12, '0') FROM 25)::uuid",
        "session_hash": "lpad((n % 1000)::text, 32, '0')",
        "stream_id": "n || '-1'",
    }
    made = ", ".join(own.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO billing_usageevent ({', '.join(columns)}) SELECT {made}"
            f" FROM billing_usageevent CROSS JOIN generate_series(1, {count}) n"
        )


def overdrawn(desk: Desk, hold_nano: int, *, ceiling: int = 10_000, over: int = 2_000) -> str:
    request_id, outcome = desk.place(hold_nano=hold_nano, ceiling_nano=ceiling, overdraft=over)
    assert isinstance(outcome, Placed), outcome
    return request_id


def test_what_costs_more_than_expected_is_charged_in_full_while_limits_have_room(
    desk: Desk,
) -> None:
    # given
    desk.set_credit(5_000, version=2)
    request_id = overdrawn(desk, 1_000)
    # when
    settled = desk.settle(request_id, 4_500)
    # then
    assert (settled.charged_nano, settled.overage_nano) == (4_500, 0)
    assert desk.tenant_register() == {"credit": 5_000, "spent": 4_500, "held": 0}


def test_an_overdraft_bounds_by_how_much_a_limit_is_passed(desk: Desk) -> None:
    # given: two holds of the p99 on a credit of 5,000, and an overdraft of 2,000
    desk.set_credit(5_000, version=2)
    first, second = overdrawn(desk, 2_500), overdrawn(desk, 2_500)
    # when
    one, two = desk.settle(first, 9_000), desk.settle(second, 9_000)
    # then: what others hold is theirs, so the first finds 2,000 of overdraft, the second nothing
    assert (one.charged_nano, one.overage_nano) == (4_500, 4_500)
    assert (two.charged_nano, two.overage_nano) == (2_500, 6_500)
    assert desk.tenant_register()["spent"] == 7_000
    _, refused = desk.place(hold_nano=1, ceiling_nano=1, overdraft=2_000)
    assert isinstance(refused, Refused)


def test_a_request_never_costs_more_than_its_ceiling(desk: Desk) -> None:
    desk.set_credit(50_000, version=2)
    request_id = overdrawn(desk, 1_000, ceiling=3_000, over=20_000)
    settled = desk.settle(request_id, 9_000)
    assert (settled.charged_nano, settled.overage_nano) == (3_000, 6_000)


def test_an_overdraft_holds_for_every_cap(desk: Desk) -> None:
    # given
    desk.set_credit(50_000, version=2)
    cap = SpendScope("key", "5", "day", 1_000)
    desk.spend = (cap,)
    request_id = overdrawn(desk, 1_000)
    # when
    settled = desk.settle(request_id, 9_000)
    # then
    assert settled.charged_nano == 3_000
    assert desk.spend_register(cap) == (3_000, 0)


def test_a_strict_hold_leaves_no_way_beyond_it(desk: Desk) -> None:
    desk.set_credit(50_000, version=2)
    request_id = desk.placed(hold_nano=1_000)
    settled = desk.settle(request_id, 9_000)
    assert (settled.charged_nano, settled.overage_nano) == (1_000, 8_000)
