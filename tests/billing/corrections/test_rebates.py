"""Volume rebates: a share of the month back, once, and again only what is off since."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from billing.corrections import rebates
from billing.corrections.volume_tiers import Tier
from billing.errors import PriceRefused
from billing.models import CreditGrant, Entry, PlanAssignment, PriceList, RebateScale, VolumeRebate
from billing.prices import plans
from tests.billing import desk as desks
from tests.billing.open_books import Books

NOW = desks.at(desks.NOON_MS)
MARCH = date(2026, 3, 1)
PAID = 280_000_000  # one request
TENTH, FIFTH = 100_000, 200_000
SCALE = (Tier(2 * PAID, TENTH), Tier(None, FIFTH))


@pytest.fixture
def plan(books: Books) -> PriceList:
    made = PriceList.objects.create(slug="startup", name="Startup")
    plans.assign(tenant=books.tenant, plan=made, actor="op", now=NOW)
    return made


def scale(plan: PriceList, mode: str = "graduated", **changes: Any) -> RebateScale:
    facts = {"scale": SCALE, "from_month": MARCH, "actor": "op", "now": NOW, **changes}
    return rebates.set_scale(plan=plan, mode=mode, **facts)


def served(books: Books, times: int) -> None:
    for _ in range(times):
        books.served()
    books.drain()


def post(now: Any = NOW, month: date = MARCH) -> list[VolumeRebate]:
    return rebates.post_month(month, actor="op", now=now)


@pytest.mark.parametrize(
    ("mode", "due"),
    [("graduated", 2 * PAID // 10 + 2 * PAID // 5), ("volume", 4 * PAID // 5)],
)
def test_the_month_s_spending_gives_its_share_back(
    books: Books, plan: PriceList, mode: str, due: int
) -> None:
    # given
    scale(plan, mode)
    served(books, 4)
    left = books.balance().left_pico
    # when
    (rebate,) = post()
    # then
    assert (int(rebate.spent_pico), int(rebate.due_pico)) == (4 * PAID, due)
    assert (rebate.grant.kind, int(rebate.grant.amount_pico)) == ("adjustment", due)
    assert books.account("revenue") == -(4 * PAID - due)
    assert books.balance().left_pico == left + due
    assert books.check() == {}


def test_posted_again_it_gives_what_is_off_since_and_else_nothing(
    books: Books, plan: PriceList
) -> None:
    # given
    scale(plan, "volume")
    served(books, 2)
    (first,) = post()
    assert post() == []
    # when: one more request lifts all of it to the next tier
    served(books, 1)
    (second,) = post()
    # then
    assert int(first.grant.amount_pico) == 2 * PAID // 10
    assert int(second.grant.amount_pico) == 3 * PAID // 5 - 2 * PAID // 10


def test_no_plan_no_tiers_no_spending_no_rebate(books: Books, plan: PriceList) -> None:
    # when / then
    assert post() == []
    scale(plan)
    assert post() == []
    served(books, 1)
    later = NOW + timedelta(seconds=1)
    plans.assign(tenant=books.tenant, plan=None, actor="op", now=later)
    assert post(later) == []


def test_a_later_scale_leaves_earlier_months_alone(books: Books, plan: PriceList) -> None:
    # given
    scale(plan, "volume")
    scale(plan, "volume", from_month=date(2026, 4, 1), scale=(Tier(None, 0),))
    served(books, 1)
    # when
    (rebate,) = post(NOW + timedelta(days=40))
    # then
    assert int(rebate.due_pico) == PAID // 10


def test_a_month_goes_by_the_plan_at_its_end(books: Books, plan: PriceList) -> None:
    # given a plan in March, and another one, without tiers, since the first moment of April
    scale(plan)
    served(books, 2)
    april = datetime(2026, 4, 1, tzinfo=UTC)
    other = PriceList.objects.create(slug="other", name="Other")
    plans.assign(tenant=books.tenant, plan=other, actor="op", now=april)
    # when
    (rebate,) = post(april + timedelta(days=3))
    # then
    assert (rebate.scale.plan, int(rebate.due_pico)) == (plan, 2 * PAID // 10)
    assert post(april + timedelta(days=3)) == []


def test_a_month_is_posted_by_itself_a_day_after_its_end_and_once(
    books: Books, plan: PriceList
) -> None:
    # given
    scale(plan)
    served(books, 1)
    april = datetime(2026, 4, 1, tzinfo=UTC)
    hours = [april + timedelta(hours=hour) for hour in (-1, 0, 23, 24, 25, 24 * 29)]
    # when
    posted = [len(rebates.post_due(now=now)) for now in hours]
    # then: and a charge that comes later is followed
    assert posted == [0, 0, 0, 1, 0, 0]
    served(books, 1)
    (rebate,) = rebates.post_due(now=hours[-1])
    assert (rebate.month, int(rebate.due_pico)) == (MARCH, 2 * PAID // 10)
    assert books.check() == {}


def test_postgres_keeps_who_was_on_which_plan(books: Books, plan: PriceList) -> None:
    for change in (lambda rows: rows.update(plan=None), lambda rows: rows.delete()):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            change(PlanAssignment.objects.all())


def test_a_bonus_never_gives_back_more_than_was_spent(books: Books, plan: PriceList) -> None:
    # given
    scale(plan, scale=(Tier(None, 0, 10**12),))
    served(books, 1)
    # when
    (rebate,) = post()
    # then
    assert int(rebate.due_pico) == PAID


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": ()}, "1 to 20"),
        ({"scale": (Tier(5, 1),)}, "no end"),
        ({"scale": (Tier(None, 1_000_001),)}, "more than was spent"),
        ({"from_month": date(2026, 2, 1)}, "this one or a later"),
        ({"from_month": date(2026, 3, 2)}, "begin with a month"),
        ({"mode": "tapered"}, "no such way"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(
    plan: PriceList, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(PriceRefused, match=match):
        scale(plan, **changes)
    assert not RebateScale.objects.exists()


def test_a_month_to_come_or_none_at_all_posts_nothing(books: Books, plan: PriceList) -> None:
    scale(plan)
    served(books, 1)
    entries = Entry.objects.count()
    for month in (date(2026, 4, 1), date(2026, 3, 2)):
        with pytest.raises(PriceRefused, match="has begun"):
            post(month=month)
    for month in ("2026-13", "x", "2999-01", "2026-02-29"):
        with pytest.raises(CommandError, match="nothing was posted"):
            call_command("post_rebates", month)
    assert Entry.objects.count() == entries


def test_the_command_posts_a_month(books: Books, plan: PriceList) -> None:
    scale(plan)
    served(books, 1)
    call_command("post_rebates", "2026-03")
    assert CreditGrant.objects.filter(kind="adjustment").count() == 1


def test_postgres_keeps_scales_and_rebates(books: Books, plan: PriceList) -> None:
    scale(plan)
    served(books, 1)
    post()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        RebateScale.objects.update(mode="volume")
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        VolumeRebate.objects.all().delete()
