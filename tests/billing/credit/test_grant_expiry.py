"""Credit that ends: at its moment, by admission's time, and never what is paid or held."""

from datetime import datetime, timedelta

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import registers, tasks
from billing.books.ledger import Kind
from billing.credit import attribution, credit_ends, grant_expiry
from billing.credit import balances as credit
from billing.credit.attribution import Pot
from billing.credit.credit_ends import Ending
from billing.errors import CreditRefused
from billing.holding.holds import Refused
from billing.models import CreditGrant, GrantUse
from billing.operations import rebuild
from billing.redis import protocol
from billing.redis import scripts as lua_scripts
from tests.billing import desk as desks
from tests.billing.open_books import Books

USD = 10**12
NANO = 10**9
GrantKind = CreditGrant.Kind
# What can be swept: whoever had an id then has placed its hold.
LATER = timedelta(minutes=1)


@pytest.fixture
def books(books: Books) -> Books:
    """At a moment after the fixture's dollar, which never ends, was granted."""
    start = CreditGrant.objects.get().created_at + timedelta(milliseconds=5)
    books.desk.now_ms = registers.moment_ms(start)
    return books


def now(books: Books) -> datetime:
    return desks.at(books.desk.now_ms)


def wait(books: Books, hours: float) -> None:
    books.desk.now_ms += int(hours * 3_600_000)


def granted(
    books: Books, dollars: int, *, hours: float | None = None, kind: str = GrantKind.GIVEN
) -> CreditGrant:
    """Of which the next request is not admitted in the same millisecond."""
    made = credit.grant(
        tenant=books.tenant,
        amount_pico=dollars * USD,
        reason="test",
        created_by="ada",
        kind=kind,
        expires_at=None if hours is None else now(books) + timedelta(hours=hours),
        now=now(books),
    )
    books.desk.now_ms += 1
    return made


def use(books: Books, dollars: int) -> None:
    books.served(usage=(dollars * 500_000, 0), hold_nano=dollars * NANO)
    books.desk.now_ms += 1


def sweep(books: Books) -> list[tuple[int, int | None]]:
    made = grant_expiry.expire_grants(now=now(books) + LATER, client=books.desk.client)
    return [(int(grant.amount_pico) // USD, grant.expires_id) for grant in made]


def free(books: Books) -> int:
    """What the next hold may be at most, by trying."""
    dollars = 0
    while True:
        request_id, outcome = books.desk.place(hold_nano=(dollars + 1) * NANO)
        if isinstance(outcome, Refused):
            at_now = credit.balance(books.tenant, client=books.desk.client, now=now(books))
            assert max(at_now.left_pico, 0) // USD == dollars
            return dollars
        books.desk.void(request_id)
        dollars += 1


def shown(books: Books) -> dict[int, int]:
    found = credit.parts(books.tenant, now=now(books))
    return {pot.grant.pk: pot.left_pico // USD for pot in found.pots}


def test_credit_that_ends_first_pays_first_then_gifts_then_what_was_bought(books: Books) -> None:
    # given: the fixture granted $1 without an end
    start = CreditGrant.objects.get()
    bought = granted(books, 2, kind=GrantKind.PAID)
    late = granted(books, 2, hours=48)
    bought_soon = granted(books, 2, hours=24, kind=GrantKind.PAID)
    books.desk.now_ms -= 1
    soon = granted(books, 2, hours=24)
    # when
    steps = [shown(books)]
    for dollars in (1, 2, 2, 2):
        use(books, dollars)
        books.drain()
        steps.append(shown(books))
    # then
    all_of = {soon.pk: 2, bought_soon.pk: 2, late.pk: 2, start.pk: 1, bought.pk: 2}
    assert steps[0] == all_of
    assert list(steps[0]) == [soon.pk, bought_soon.pk, late.pk, start.pk, bought.pk]
    assert steps[1] == {**all_of, soon.pk: 1}
    assert steps[2] == {bought_soon.pk: 1, late.pk: 2, start.pk: 1, bought.pk: 2}
    assert steps[3] == {late.pk: 1, start.pk: 1, bought.pk: 2}
    assert steps[4] == {bought.pk: 2}


def test_what_is_settled_and_not_posted_is_not_left(books: Books) -> None:
    # given
    ending = granted(books, 3, hours=1)
    # when
    use(books, 2)
    # then
    assert shown(books)[ending.pk] == 1


def test_a_hold_after_the_end_spends_nothing_that_has_ended(books: Books) -> None:
    # given
    granted(books, 3, hours=1)
    assert free(books) == 4
    # when: nobody has swept
    books.desk.now_ms += 3_600_000 - 2
    assert free(books) == 4
    books.desk.now_ms += 1
    # then
    assert free(books) == 1
    assert books.desk.tenant_register()["credit"] == 4 * NANO


def test_an_end_is_written_down_once_and_given_credit_costs_nothing(books: Books) -> None:
    # given
    ending = granted(books, 3, hours=1)
    use(books, 1)
    wait(books, 2)
    # when
    first, second = sweep(books), sweep(books)
    # then
    assert (first, second) == ([(-2, ending.pk)], [])
    assert free(books) == 1
    assert int(GrantUse.objects.get().amount_pico) == USD
    assert books.account(Kind.PROMO_EXPENSE) == 2 * USD
    assert books.desk.tenant_register()["credit"] == 2 * NANO
    assert books.check() == {}


def test_bought_credit_that_ends_is_breakage(books: Books) -> None:
    # given
    granted(books, 3, hours=1, kind=GrantKind.PAID)
    wait(books, 2)
    # when
    sweep(books)
    # then
    assert books.account(Kind.BREAKAGE) == -3 * USD
    assert books.account(Kind.CASH) == 3 * USD


def test_what_an_open_request_holds_does_not_end_and_what_it_leaves_does(books: Books) -> None:
    # given: $3 that end and $1 that does not, and a hold of $3
    ending = granted(books, 3, hours=1)
    request = books.desk.placed(hold_nano=3 * NANO)
    wait(books, 1)
    # then
    assert free(books) == 1
    assert sweep(books) == []
    # when: it costs $1 of the $3
    books.settle(request, usage=(500_000, 0))
    # then: the $2 it leaves have ended, at once
    assert free(books) == 1
    assert sweep(books) == [(-2, ending.pk)]
    assert free(books) == 1
    assert books.check() == {}


@pytest.mark.parametrize("ending_by", ["void", "expire", "late"])
def test_a_hold_that_is_released_otherwise_leaves_what_has_ended(
    ending_by: str, books: Books
) -> None:
    # given
    granted(books, 3, hours=1)
    request = books.desk.placed(hold_nano=3 * NANO)
    wait(books, 1)
    assert free(books) == 1
    # when
    if ending_by == "void":
        books.desk.void(request)
    else:
        books.desk.now_ms += 700_000
        assert books.desk.expire(request)
    # then
    assert free(books) == 1
    if ending_by == "late":
        # At most what is free then; and it is the gift that pays, for it was admitted in time.
        assert books.settle(request, usage=(1_000_000, 0)).charged_nano == NANO
        assert free(books) == 1
    assert [amount for amount, _ in sweep(books)] == [-2 if ending_by == "late" else -3]
    assert free(books) == 1
    assert books.check() == {}


def test_usage_of_before_the_end_burns_it_however_late_it_is_posted(books: Books) -> None:
    # given
    ending = granted(books, 3, hours=1)
    use(books, 2)
    wait(books, 2)
    use(books, 1)
    # when: nothing is drained before the sweep
    swept = sweep(books)
    # then
    assert swept == [(-1, ending.pk)]
    assert free(books) == 0
    assert shown(books) == {}


def test_usage_of_after_the_end_does_not_burn_what_had_ended(books: Books) -> None:
    # given
    ending = granted(books, 3, hours=1)
    wait(books, 1)
    use(books, 1)
    books.drain()
    # then
    assert sweep(books) == [(-3, ending.pk)]
    assert free(books) == 0


def test_a_gift_does_not_pay_for_what_was_admitted_before_it(books: Books) -> None:
    # given
    bought = granted(books, 10, kind=GrantKind.PAID)
    use(books, 8)
    books.drain()
    # when
    gift = granted(books, 5, hours=1)
    # then
    assert shown(books) == {gift.pk: 5, bought.pk: 3}
    wait(books, 1)
    assert sweep(books) == [(-5, gift.pk)]
    assert free(books) == 3


def test_what_is_open_when_a_gift_comes_is_not_paid_by_it(books: Books) -> None:
    # given
    request = books.desk.placed(hold_nano=NANO)
    books.desk.now_ms += 1
    gift = granted(books, 3, hours=1)
    # when
    wait(books, 1)
    # then
    assert free(books) == 0
    books.settle(request, usage=(500_000, 0))
    assert free(books) == 0
    assert sweep(books) == [(-3, gift.pk)]


def test_a_gift_that_is_told_late_pays_for_what_came_meanwhile(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: Redis does not hear of it at once
    with monkeypatch.context() as patch:
        patch.setattr(credit, "push", lambda *_, **__: None)
        gift = granted(books, 3, hours=1)
    use(books, 1)
    books.desk.now_ms += 30_000
    # when
    credit.push(books.desk.client, books.tenant.pk, now(books))
    # then
    assert shown(books)[gift.pk] == 2
    wait(books, 1)
    assert free(books) == 1
    assert sweep(books) == [(-2, gift.pk)]
    assert free(books) == 1


def test_an_end_never_takes_paid_money(books: Books) -> None:
    # given: more was used than the gift, by several that were open at once
    gift = granted(books, 2, hours=1)
    granted(books, 5, kind=GrantKind.PAID)
    requests = [books.desk.placed(hold_nano=2 * NANO) for _ in range(3)]
    wait(books, 1)
    assert free(books) == 2
    # when
    for request in requests:
        books.settle(request, usage=(500_000, 0))
    # then: $3 of use, $2 of them by the gift
    assert sweep(books) == []
    assert free(books) == 5
    assert int(GrantUse.objects.get(grant=gift).amount_pico) == 2 * USD


def test_a_refund_of_bought_credit_does_not_burn_the_gift(books: Books) -> None:
    # given
    bought = granted(books, 10, kind=GrantKind.PAID)
    gift = granted(books, 5, hours=1)
    lasting = CreditGrant.objects.order_by("pk")[0]
    # when
    granted(books, -10, kind=GrantKind.PAID)
    # then
    assert shown(books) == {gift.pk: 5, lasting.pk: 1}
    assert free(books) == 6
    # and one that is larger than what is left of it is owed, and still burns no gift
    granted(books, -4, kind=GrantKind.PAID)
    found = credit.parts(books.tenant, now=now(books))
    assert (shown(books), found.owed_pico) == ({gift.pk: 5, lasting.pk: 1}, 4 * USD)
    assert free(books) == 2
    assert bought.pk not in shown(books)


def test_several_ends_are_each_kept_at_their_moment(books: Books) -> None:
    # given
    first, second, third = (granted(books, 2, hours=hours) for hours in (1, 2, 3))
    holding = books.desk.placed(hold_nano=3 * NANO)
    # when / then: $2 of the first and $1 of the second are held
    wait(books, 1)
    assert free(books) == 4
    wait(books, 1)
    assert free(books) == 3
    # $1 of use is the first's; what was held of the second has ended with it
    books.settle(holding, usage=(500_000, 0))
    assert free(books) == 3
    wait(books, 1)
    assert free(books) == 1
    assert sweep(books) == [(-1, first.pk), (-2, second.pk), (-2, third.pk)]
    assert free(books) == 1


def test_a_rebuild_knows_what_has_ended_and_what_is_held(books: Books) -> None:
    # given
    granted(books, 3, hours=1)
    holding = books.desk.placed(hold_nano=2 * NANO)
    wait(books, 1)
    use(books, 1)
    assert free(books) == 0
    # when
    rebuild.rebuild(books.desk.client, books.shard, now=now(books))
    books.adopt_epoch()
    # then
    assert free(books) == 0
    books.desk.void(holding)
    assert free(books) == 0
    assert sweep(books)
    assert free(books) == 0


def test_another_tenant_s_open_request_delays_nothing(books: Books) -> None:
    # given: somebody of the same shard holds something since before the end
    other = books.tenant.pk + registers.SHARDS
    desk = desks.Desk(books.desk.client, tenant=other, epoch=books.desk.epoch)
    desk.now_ms = books.desk.now_ms
    desks.warm(desk.client, tenant=other, credit_nano=NANO, epoch=books.desk.epoch)
    ending = granted(books, 3, hours=1)
    desk.placed()
    wait(books, 1)
    # then
    assert sweep(books) == [(-3, ending.pk)]


def test_the_task_runs_alone_and_one_sweep_beside_another_takes_nothing(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(tasks.grant_expiry, "expire_grants", lambda **_: ran.append(1))
    monkeypatch.setattr(tasks.locks, "_run", lambda *_: False)
    tasks.expire_credit()
    assert ran == []


@pytest.mark.parametrize("hours", [-1, 0])
def test_an_end_in_the_past_is_refused(hours: int, books: Books) -> None:
    with pytest.raises(CreditRefused, match="past"):
        granted(books, 1, hours=hours)
    assert CreditGrant.objects.count() == 1


def test_ends_are_limited_and_a_withdrawal_has_none(books: Books) -> None:
    with pytest.raises(CreditRefused, match="does not end"):
        granted(books, -1, hours=1)
    for hours in range(1, attribution.ENDING_MAX + 1):
        granted(books, 1, hours=hours)
    with pytest.raises(CreditRefused, match="at most"):
        granted(books, 1, hours=1)
    assert CreditGrant.objects.count() == 1 + attribution.ENDING_MAX


@pytest.mark.parametrize("amount", [0, 1, 7])
def test_burning_more_than_there_is_leaves_the_rest_owed(amount: int) -> None:
    made = [Pot(CreditGrant(pk=i), 2) for i in range(3)]
    assert attribution.burn(made, amount) == max(amount - 6, 0)
    assert sum(pot.left_pico for pot in made) == 6 - min(amount, 6)


NANOS = st.lists(st.integers(0, 40), max_size=8)
SPANS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(0, 40)), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=SPANS, posted=NANOS, noted=NANOS, used=st.integers(0, 200), now_ms=st.integers(0, 14))
def test_the_script_and_its_twin_agree(
    redis_client: redis.Redis,
    spans: list[tuple[int, int, int]],
    posted: list[int],
    noted: list[int],
    used: int,
    now_ms: int,
) -> None:
    # given
    ending = [Ending(begins, begins + lasts, left) for begins, lasts, left in spans]
    moments = sorted({at for each in ending for at in (each.from_ms, each.until_ms)})
    packed = [
        credit_ends.pack(ending),
        credit_ends.pack_moments({at: sum(posted[:i]) for i, at in enumerate(moments)}),
        credit_ends.pack_moments(
            {at: sum(noted[: i + 1]) for i, at in enumerate(moments) if i % 3}
        ),
    ]
    shared = map(lua_scripts.text_of, ("common", "ends"))
    source = "\n".join([protocol.constants(lua_scripts.CONSTANTS), *shared])
    arguments = "ARGV[1], ARGV[2], noted(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])"
    # when
    by_script = redis_client.eval(
        f"{source}\nreturn text(ended({arguments}))", 0, *packed, used, now_ms
    )
    # then
    told = [part.encode() for part in packed]
    assert int(by_script) == credit_ends.ended_nano(*told, used_nano=used, now_ms=now_ms)
    assert 0 <= int(by_script) <= sum(each.left_nano for each in ending)
