"""Registers that disagree with PostgreSQL, and caps that were passed, are found and kept."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import product
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import locks, registers
from billing.credit import balances as credit
from billing.drain import metering
from billing.errors import LockTimeout
from billing.holding import hold_modes, quota_registers
from billing.holding.holds import Placed, SpendScope
from billing.holding.scopes import register_of
from billing.integrity import register_checks, register_findings
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import Finding, Quota, Tenant, UsageEvent
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.open_books import Books

COST_PICO = 280_000_000
LONG_AGO = desks.at(desks.NOON_MS) - timedelta(days=60)
WINDOWS = ("day", "week", "month", "lifetime")
SCOPES = (("tenant", ""), ("key", "5"), ("team", "4"), ("model", "swift-1"), ("provider", "acme"))


def now_of(books: Books) -> datetime:
    return desks.at(books.desk.now_ms)


def capped(
    books: Books,
    *,
    kind: str = "key",
    scope_id: str = "5",
    window: str = "day",
    limit_pico: int = 10**12,
    since: datetime = LONG_AGO,
) -> str:
    """A cap that the tenant's requests are held under from now on; the name of its register."""
    desk, scope_id = books.desk, scope_id or str(books.tenant.pk)
    quotas.set_quota(
        tenant=books.tenant,
        cap=Cap(scope_kind=kind, scope_id=scope_id, window=window, limit_pico=limit_pico),
        actor="alice",
        now=now_of(books),
        client=desk.client,
    )
    Quota.objects.update(limit_since=since)
    scope = SpendScope(kind, scope_id, window, limit_pico // 1000)
    desk.spend = (*desk.spend, scope)
    return register_of(desk.tag, desk.tenant, scope, desk.now_ms)[0]


def spent(books: Books) -> None:
    books.served(team=4)
    books.drain()


def compared(books: Books) -> dict[str, list[str]]:
    """The promises about registers that are broken."""
    found = register_checks.check(books.desk.client, now=now_of(books))
    return {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.parametrize("nano", [1, -1])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("kind", "scope_id"), SCOPES)
def test_a_cap_that_says_more_or_less_is_found(
    books: Books, kind: str, scope_id: str, window: str, nano: int
) -> None:
    # given
    register = capped(books, kind=kind, scope_id=scope_id, window=window)
    spent(books)
    assert compared(books) == {}
    # when
    books.desk.client.hincrby(register, "spent", nano)
    # then
    had = COST_PICO + 1000 * nano
    detail = f"{register}: spent {had}, due {COST_PICO}"
    assert compared(books) == {register_checks.REGISTERS_EQUAL: [detail]}
    assert books.check() == {register_checks.REGISTERS_EQUAL: detail}


def test_what_is_wrong_is_told_once_and_over_when_a_rebuild_put_it_right(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    register = capped(books)
    spent(books)
    books.desk.client.hincrby(register, "spent", 5)
    # when
    first, second = compared(books), compared(books)
    # then
    assert first == second != {}
    told = [line for line in caplog.messages if register in line and "differs" in line]
    assert len(told) == 1
    # when
    rebuild.rebuild(books.desk.client, books.shard, now=now_of(books))
    # then
    assert compared(books) == {}
    finding = Finding.objects.get()
    assert (finding.resolved_at, finding.resolved_by) == (
        now_of(books),
        register_findings.COMPARED_BY,
    )


def test_it_stays_when_its_window_is_over_until_somebody_says_what_it_was(
    books: Books, admin_client: Client
) -> None:
    # given
    register = capped(books)
    spent(books)
    books.desk.client.hincrby(register, "spent", 5)
    before = compared(books)
    # when
    books.desk.now_ms += 2 * registers.MS_PER_DAY
    # then
    assert compared(books) == before != {}
    # when
    address = "/admin/billing/finding/"
    assert register in admin_client.get(address).content.decode()
    form = {"action": "resolve", "_selected_action": [Finding.objects.get().pk]}
    admin_client.post(address, {**form, "_confirm": "1", "reason": "a restore"})
    # then
    assert compared(books) == {}
    assert Finding.objects.get().reason == "a restore"


def test_a_shard_that_is_busy_keeps_its_findings(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    register = capped(books)
    spent(books)
    books.desk.client.hincrby(register, "spent", 5)
    before = compared(books)
    monkeypatch.setattr(register_checks, "LOCK_WAIT_S", 0)
    held, done = threading.Event(), threading.Event()

    def busy() -> None:
        with locks.shard(books.shard) as taken:
            assert taken
            held.set()
            done.wait()
        connection.close()

    other = threading.Thread(target=busy)
    other.start()
    held.wait()
    # when
    found = compared(books)
    done.set()
    other.join()
    # then
    assert found == before != {}


def passed(books: Books) -> None:
    """Held and settled past the cap, as a broken script would."""
    books.desk.spend = tuple(replace(scope, limit_nano=10**9) for scope in books.desk.spend)
    spent(books)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_a_cap_that_was_passed_is_found(books: Books, window: str, zone: str) -> None:
    # given
    books.tenant.time_zone = zone
    books.tenant.save()
    capped(books, window=window, limit_pico=COST_PICO - 1)
    books.desk.spend = (SpendScope("key", "5", window, 10**9, zone=zone),)
    # when
    spent(books)
    # then
    ((name, (detail,)),) = compared(books).items()
    assert name == register_checks.WITHIN_CAPS
    assert detail.endswith(f": {COST_PICO} of {COST_PICO - 1}")


def test_a_passed_cap_stays_until_explained_and_is_found_again_when_it_has_more(
    books: Books, admin_client: Client
) -> None:
    # given
    register = capped(books, limit_pico=COST_PICO - 1)
    passed(books)
    before = compared(books)
    assert before == {register_checks.WITHIN_CAPS: [f"{register}: {COST_PICO} of {COST_PICO - 1}"]}
    # when: a higher limit makes it no better
    Quota.objects.update(limit_pico=10**12)
    # then
    assert compared(books) == before
    # when
    Quota.objects.update(limit_pico=COST_PICO - 1)
    form = {"action": "resolve", "_selected_action": [Finding.objects.get().pk]}
    admin_client.post(
        "/admin/billing/finding/", {**form, "_confirm": "1", "reason": "a script of ours"}
    )
    # then
    assert compared(books) == {}
    # when
    passed(books)
    # then
    assert compared(books) == {
        register_checks.WITHIN_CAPS: [f"{register}: {2 * COST_PICO} of {COST_PICO - 1}"]
    }


ALLOWED = ("lowered", "in shadow", "raised", "just enough", "overdraft taken away")


@pytest.mark.parametrize(
    ("how", "window"),
    [*product(ALLOWED, WINDOWS), ("zone moved", "day"), ("zone moved", "month")],
)
def test_a_cap_that_may_be_passed_is_no_finding(books: Books, how: str, window: str) -> None:
    # given
    capped(books, window=window, limit_pico=COST_PICO - (how != "just enough"))
    passed(books)
    now = now_of(books)
    # when
    terms: dict[str, dict[str, Any]] = {
        "lowered": {"limit_since": now},
        "in shadow": {"shadow": True},
        "raised": {"raised_pico": 10**12, "raised_until": now + timedelta(hours=1)},
    }
    if how in terms:
        Quota.objects.update(**terms[how])
    elif how == "zone moved":
        quotas.change_time_zone(
            tenant=books.tenant, zone="Asia/Tokyo", actor="alice", now=now,
            client=books.desk.client,
        )  # fmt: skip
    elif how == "overdraft taken away":
        mode: dict[str, Any] = {"tenant": books.tenant, "actor": "alice", "now": now}
        hold_modes.set_hold_mode(mode="expected", overdraft_pico=10**9, **mode)
        hold_modes.set_hold_mode(mode="strict", overdraft_pico=0, **mode)
    # then
    assert compared(books) == {}


def test_a_limit_that_was_lowered_binds_the_days_that_follow(books: Books) -> None:
    # given: more was spent than the new limit, which was allowed then
    register = capped(books, window="lifetime", limit_pico=COST_PICO - 1, since=LONG_AGO)
    passed(books)
    Quota.objects.update(limit_since=now_of(books))
    assert compared(books) == {}
    # when: somebody is let in on the next day
    books.desk.now_ms += registers.MS_PER_DAY
    passed(books)
    # then
    assert compared(books) == {
        register_checks.WITHIN_CAPS: [f"{register}: {2 * COST_PICO} of {COST_PICO - 1}"]
    }


def test_what_is_read_does_not_grow_with_caps_or_with_history(books: Books) -> None:
    # given
    def asked() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            assert compared(books) == {}
        return [query["sql"] for query in queries]

    for window in WINDOWS:
        capped(books, window=window)
    spent(books)
    before = asked()
    # when: of two thousand models
    Quota.objects.bulk_create(
        Quota(
            tenant=books.tenant,
            scope_kind="model",
            scope_id=f"model-{number}",
            window=window,
            limit_pico=1,
        )
        for number, window in enumerate(WINDOWS * 500)
    )
    # then: as many statements, and none of events that have a day's sum
    after = asked()
    assert len(after) == len(before)
    assert not [sql for sql in after if "FROM billing_usageevent" in sql]


def test_caps_lowered_below_what_was_spent_are_asked_after_together(books: Books) -> None:
    # given: caps of everything in which a request counts, and two days since
    for kind, scope_id in SCOPES:
        capped(books, kind=kind, scope_id=scope_id, window="lifetime")
    spent(books)
    lowered = {"limit_pico": 1, "limit_since": now_of(books)}
    books.desk.now_ms += 2 * registers.MS_PER_DAY

    def asked(caps: "QuerySet[Quota]") -> int:
        caps.update(**lowered)
        with CaptureQueriesContext(connection) as queries:
            assert compared(books) == {}
        return len(queries)

    # when
    one = asked(Quota.objects.filter(scope_kind="key"))
    # then
    assert asked(Quota.objects.all()) == one


def test_a_register_of_the_longest_name_is_found_and_resolved(
    books: Books, admin_client: Client
) -> None:
    # given
    capped(books, kind="model", scope_id="\U0001f600" * 200)
    (cap,) = quota_registers.of_quotas(Quota.objects.all(), now_of(books)).values()
    register = cap.key
    assert len(register) > 2400
    # when
    books.desk.client.hincrby(register, "spent", 5)
    # then
    assert compared(books) == {register_checks.REGISTERS_EQUAL: [register[:400]]}
    finding = Finding.objects.get()
    assert (finding.what, finding.register) == (register_findings.DIFFERS, register)
    # when
    form = {"action": "resolve", "_selected_action": [finding.pk], "_confirm": "1"}
    admin_client.post("/admin/billing/finding/", {**form, "reason": "a restore"})
    # then
    finding.refresh_from_db()
    assert (finding.reason, finding.resolved_by) == ("a restore", "admin")


@dataclass
class Clock:
    """Of all clients of a run: five minutes later with each of their steps. Nobody learns of a cap
    minutes after a request could have, as on a clock that runs like others."""

    now_ms: int
    known: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def step(self) -> Iterator[int]:
        with self.known:
            self.now_ms += 300_000
            yield self.now_ms


def _client(books: Books, clock: Clock, seed: int) -> None:
    """Places, then settles, voids or lets expire, under whatever caps its snapshot knows."""
    draw, desk = Random(seed), replace(books.desk)
    mine = Books(desk=desk, tenant=books.tenant, price=books.price)
    for _ in range(40):
        with clock.step() as desk.now_ms:
            zone = Tenant.objects.get(pk=books.tenant.pk).time_zone
            desk.spend = tuple(
                SpendScope(q.scope_kind, q.scope_id, q.window, 10**10, zone=zone)
                for q in Quota.objects.filter(tenant=books.tenant)
            )
            request_id, outcome = desk.place(hold_nano=1_000_000)
        assert isinstance(outcome, Placed)
        match draw.randrange(4):
            case 0:
                desk.void(request_id)
            case 1:
                desk.checkpoint(request_id, charge_nano=draw.randrange(300_000), team=4)
                desk.now_ms += registers.MS_PER_DAY
                desk.expire(request_id)
            case _:
                mine.settle(request_id, usage=(draw.randrange(200), draw.randrange(20)), team=4)
    connection.close()


def _operator(books: Books, clock: Clock, seed: int) -> None:
    """Sets, raises and removes caps, moves the time zone, and drains."""
    draw = Random(seed)
    by: dict[str, Any] = {"tenant": books.tenant, "actor": "alice"}
    for _ in range(25):
        kind, scope_id = draw.choice(SCOPES[1:])
        cap = Cap(
            scope_kind=kind, scope_id=scope_id, window=draw.choice(WINDOWS), limit_pico=10**13
        )
        with contextlib.suppress(LockTimeout), clock.step() as now_ms:
            now = desks.at(now_ms)
            match draw.randrange(5):
                case 0:
                    zone = draw.choice(("UTC", "Asia/Kolkata", "America/New_York"))
                    quotas.change_time_zone(zone=zone, now=now, client=books.desk.client, **by)
                case 1:
                    with locks.shard_or_raise(books.shard, wait_s=10):
                        metering.drain(books.desk.client, books.shard, now=now)
                case 2:
                    quota = quotas.set_quota(cap=cap, now=now, client=books.desk.client, **by)
                    quotas.raise_quota(
                        quota_id=quota.pk, limit_pico=10**14, until=now + timedelta(days=1),
                        now=now, **by,
                    )  # fmt: skip
                case _:
                    quotas.set_quota(cap=cap, now=now, client=books.desk.client, **by)
    connection.close()


def test_nothing_is_found_while_everything_moves(books: Books) -> None:
    # given
    credit.grant(tenant=books.tenant, amount_pico=10**15, reason="load", created_by="test")
    for (kind, scope_id), window in product(SCOPES[:2], WINDOWS):
        capped(books, kind=kind, scope_id=scope_id, window=window)
    clock = Clock(desks.NOON_MS)
    clients = [threading.Thread(target=_client, args=(books, clock, n)) for n in range(4)]
    operator = threading.Thread(target=_operator, args=(books, clock, 7))
    running = [*clients, operator]
    for thread in running:
        thread.start()
    # when
    looked = 0
    while any(thread.is_alive() for thread in running):
        register_checks.check(books.desk.client, now=desks.at(clock.now_ms))
        looked += 1
    for thread in running:
        thread.join()
    # then
    assert list(Finding.objects.values_list("detail", flat=True)) == []
    assert looked > 5
    books.desk.now_ms = clock.now_ms
    books.drain()
    assert compared(books) == {}
    assert UsageEvent.objects.count() > 100
