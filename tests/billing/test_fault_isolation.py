"""One tenant, shard or hold that cannot be served keeps no other waiting, and is told of."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import redis
from billiard.exceptions import SoftTimeLimitExceeded
from django.db import IntegrityError, OperationalError, connection, transaction

from billing import fault_isolation, registers, tasks
from billing.corrections import rebates
from billing.credit import balances as credit
from billing.credit import grant_expiry
from billing.fault_isolation import SomeFailed
from billing.holding import call_profiles, expiry
from billing.holding.holds import SettledAttempt
from billing.integrity import new_rows, register_checks
from billing.invoicing import runs
from billing.models import (
    BillingProfile,
    CallMark,
    CallProfile,
    CreditGrant,
    InvariantCheck,
    Invoice,
    PriceList,
    RebateScale,
    TaskRun,
    Tenant,
    UsageEvent,
    VolumeRebate,
)
from billing.prices import plans
from tests.billing import desk as desks
from tests.billing.open_books import Books

APRIL = datetime(2026, 4, 10, tzinfo=UTC)


@pytest.fixture
def first(books: Books) -> Tenant:
    """A tenant that is served before that of the books, and whose trouble is planted."""
    return Tenant.objects.create(pk=books.tenant.pk - 1, slug="first", name="First")


def failed(run: str, *names: str) -> None:
    """The run of the task ended as failed, and names these."""
    noted = TaskRun.objects.get(name=run)
    assert noted.failed_at is not None
    for name in names:
        assert name in noted.failure


def test_everybody_is_served_and_who_failed_is_named_at_the_end() -> None:
    # given
    served = []

    def serve(number: int) -> int:
        if number % 2:
            raise ValueError(f"not {number}")
        served.append(number)
        return number

    # when
    with pytest.raises(SomeFailed) as told:
        fault_isolation.each(range(13), serve, name=lambda number: f"number {number}")
    # then
    assert served == [0, 2, 4, 6, 8, 10, 12]
    assert [name for name, _ in told.value.failures] == [f"number {n}" for n in range(1, 13, 2)]
    assert str(told.value).startswith("number 1: ValueError: not 1; number 3: ")
    assert str(told.value).endswith("; and 1 more")


def test_within_a_round_results_come_at_once_and_failures_at_its_end() -> None:
    # given
    halves = []

    def steps() -> None:
        with fault_isolation.told_at_the_end():
            halves.extend(fault_isolation.each([1, 0, 2], lambda number: 2 // number))
            with fault_isolation.apart("the next step"):
                raise KeyError("gone")

    # when
    with pytest.raises(SomeFailed) as told:
        steps()
    # then
    assert halves == [2, 1]
    assert [name for name, _ in told.value.failures] == ["0", "the next step"]


@pytest.mark.parametrize(
    "problem",
    [SoftTimeLimitExceeded(), redis.ConnectionError("away"), redis.TimeoutError("slow")],
)
def test_what_fails_for_everybody_ends_the_round_at_once(problem: Exception) -> None:
    # given
    asked = []

    def serve(number: int) -> None:
        asked.append(number)
        raise problem

    # when
    with pytest.raises(type(problem)):
        fault_isolation.each([1, 2], serve)
    # then
    assert asked == [1]


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_fails_is_undone_to_its_savepoint_and_the_rest_is_kept() -> None:
    # given: one that writes and then breaks a promise, one that takes too long
    Tenant.objects.create(slug="taken", name="Taken")

    def serve(slug: str) -> None:
        Tenant.objects.create(slug=f"{slug}-too", name=slug)
        Tenant.objects.create(slug=slug, name=slug)
        if slug == "slow":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)")

    # when
    with pytest.raises(SomeFailed) as told, fault_isolation.told_at_the_end(), transaction.atomic():
        fault_isolation.each(["taken", "slow", "good"], serve)
    # then
    assert [type(problem) for _, problem in told.value.failures] == [
        IntegrityError,
        OperationalError,
    ]
    assert set(Tenant.objects.values_list("slug", flat=True)) == {"taken", "good", "good-too"}


@pytest.mark.django_db(transaction=True)
def test_a_postgres_that_is_gone_ends_the_round() -> None:
    # given
    asked = []

    def serve(number: int) -> None:
        asked.append(number)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    # when
    with pytest.raises(OperationalError):
        fault_isolation.each([1, 2], serve)
    connection.close()
    # then
    assert asked == [1]


def test_a_hold_that_cannot_expire_and_leases_that_are_none_keep_no_other(
    books: Books, first: Tenant
) -> None:
    # given
    client = books.desk.client
    broken, fine = books.desk.placed(), books.desk.placed(hold_nano=7)
    client.hset(registers.hold_key(books.desk.tag, broken), "hold", "nonsense")
    client.set(registers.leases_key(registers.shard_tag(first.pk)), "nonsense")
    # when
    with pytest.raises(SomeFailed):
        tasks.expire_holds()
    # then
    failed(tasks.EXPIRE, f"shard {first.shard}: ResponseError", f"hold {broken}")
    assert client.hget(registers.hold_key(books.desk.tag, fine), "state") == b"expired"
    assert client.hget(registers.hold_key(books.desk.tag, broken), "state") == b"open"


def test_a_cold_shard_is_no_failure_of_the_sweep(books: Books) -> None:
    # given
    books.desk.placed()
    books.desk.client.delete(registers.epoch_key(books.desk.tag))
    # when / then
    later_ms = books.desk.now_ms + registers.MS_PER_DAY
    assert expiry.expire_holds(books.desk.client, now_ms=later_ms) == 0


def test_a_shard_that_cannot_be_compared_hides_no_other_s_difference(
    books: Books, first: Tenant
) -> None:
    # given
    tasks.drain_usage()
    books.adopt_epoch()
    books.served()
    books.desk.client.set(registers.leases_key(registers.shard_tag(first.pk)), "nonsense")
    books.desk.client.hincrby(registers.tenant_key(books.desk.tag, books.tenant.pk), "spent", 1)
    # when
    with pytest.raises(SomeFailed):
        tasks.check_invariants()
    # then
    failed(tasks.CHECK, f"shard {first.shard}: ResponseError")
    check = InvariantCheck.objects.get(name=register_checks.REGISTERS_EQUAL)
    assert (check.holds, check.detail.endswith("spent 280001000, due 280000000")) == (False, True)


def test_a_check_that_cannot_be_made_is_not_called_kept(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    name, *others = new_rows.PROMISES
    tasks.check_invariants()
    before = InvariantCheck.objects.get(name=name)
    impossible = "SELECT 1 / 0 FROM billing_transfer t WHERE {which}"
    promise = replace(new_rows.PROMISES[name], sql=impossible)
    monkeypatch.setitem(new_rows.PROMISES, name, promise)
    # when
    with pytest.raises(SomeFailed):
        tasks.check_invariants()
    # then
    failed(tasks.CHECK, f"{name}: DataError")
    after = InvariantCheck.objects.get(name=name)
    assert (after.verified_until, after.checked_at) == (before.verified_until, before.checked_at)
    renewed = InvariantCheck.objects.filter(verified_until__gt=before.verified_until)
    assert set(renewed.values_list("name", flat=True)) == set(others)


def test_credit_that_cannot_be_told_keeps_no_other_s_from_being_told(
    books: Books, first: Tenant
) -> None:
    # given
    key = registers.tenant_key(books.desk.tag, books.tenant.pk)
    books.desk.client.delete(key)
    Tenant.objects.filter(pk=first.pk).update(credit_version=2**60)
    # when
    with pytest.raises(SomeFailed, match=f"credit of tenant {first.pk}"):
        credit.push_stale(books.desk.client)
    # then
    assert books.desk.client.hget(key, "credit") == b"1000000000"


def test_a_tenant_without_a_calendar_keeps_no_other_from_being_billed(
    books: Books, first: Tenant
) -> None:
    # given
    for tenant in (first, books.tenant):
        BillingProfile.objects.create(
            tenant=tenant, legal_name=tenant.name, address="1 Road", country="DE"
        )
    Tenant.objects.filter(pk=first.pk).update(time_zone="Mars/Olympus")
    # when
    with pytest.raises(SomeFailed, match="first: ZoneInfoNotFoundError"):
        runs.draft_due(now=APRIL)
    # then
    assert Invoice.objects.get().tenant == books.tenant
    # and by hand
    made, refused = runs.draft_last_month(now=APRIL, created_by="ada")
    assert [invoice.tenant for invoice in made] == [books.tenant]
    assert refused == [(first, "failed: ZoneInfoNotFoundError")]


def test_a_tenant_whose_credit_cannot_expire_keeps_no_other_s(books: Books, first: Tenant) -> None:
    # given
    now = datetime.now(UTC)
    for tenant in (first, books.tenant):
        credit.grant(
            tenant=tenant,
            amount_pico=10**12,
            reason="gift",
            created_by="ada",
            expires_at=now + timedelta(hours=1),
        )
    books.desk.client.set(registers.leases_key(registers.shard_tag(first.pk)), "nonsense")
    # when
    with pytest.raises(SomeFailed, match="tenant first: ResponseError"):
        grant_expiry.expire_grants(now=now + timedelta(hours=2), client=books.desk.client)
    # then
    taken = CreditGrant.objects.get(kind=CreditGrant.Kind.EXPIRY)
    assert (taken.tenant, taken.amount_pico) == (books.tenant, -(10**12))


def test_a_plan_whose_tiers_are_none_keeps_no_other_s_rebate(books: Books, first: Tenant) -> None:
    # given
    now = desks.at(desks.NOON_MS)
    for tenant, tiers in ((first, [["nonsense"]]), (books.tenant, [[None, 100_000, 0]])):
        plan = PriceList.objects.create(slug=tenant.slug, name=tenant.name)
        plans.assign(tenant=tenant, plan=plan, actor="op", now=now)
        RebateScale.objects.create(
            plan=plan,
            mode="volume",
            from_month=now.date().replace(day=1),
            tiers=tiers,
            recorded_by="op",
            recorded_at=now,
        )
    books.served()
    books.drain()
    # when
    with pytest.raises(SomeFailed, match="first: ValueError"), fault_isolation.told_at_the_end():
        rebates.post_due(now=APRIL)
    # then
    assert [r.due_pico for r in VolumeRebate.objects.filter(tenant=books.tenant)] == [28_000_000]
    # and by hand it is all or nothing
    books.served()
    books.drain()
    with pytest.raises(SomeFailed):
        rebates.post_month(now.date().replace(day=1), actor="op", now=now)
    assert VolumeRebate.objects.count() == 1


def test_a_claim_beyond_all_bounds_keeps_no_other_call_from_being_counted(books: Books) -> None:
    # given
    for claimed in (10**16, 100):
        request_id = books.desk.placed(hold_nano=1_000_000)
        made = books.desk.event(request_id, usage=(claimed, claimed), billable=False)
        made.detail.input_bound = 400
        books.desk.settle_events(request_id, [SettledAttempt(desks.encode(made), 0)])
    books.drain()
    # A run counts a bounded number of ids, and other tests may have used up many.
    CallMark.objects.create(pk=1, last_event_id=UsageEvent.objects.earliest("pk").pk - 1)
    # when
    call_profiles.refresh(now=desks.at(books.desk.now_ms))
    # then
    profile = CallProfile.objects.get(api_key_id=None)
    assert (profile.calls, profile.output_p99) == (2, call_profiles.EDGES[-1] - 1)
