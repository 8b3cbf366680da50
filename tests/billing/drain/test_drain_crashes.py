"""Drains that die at any point, and three at once: every settle that Redis acknowledged is posted
exactly once.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.models import Sum

from billing import registers
from billing.credit import balances as credit
from billing.models import AccountSum, ShardEpoch, Tenant, UsageDay, UsageEvent
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.desk import Desk
from tests.billing.drainer import POINTS
from tests.billing.open_books import Books
from tests.patience import PATIENCE_S, eventually

COST_PICO = 280_000_000
SETTLED = 5


@contextmanager
def drainer(*point: str) -> Iterator["subprocess.Popen[bytes]"]:
    name = connection.settings_dict["NAME"]
    process = subprocess.Popen([sys.executable, "-m", "tests.billing.drainer", name, *point])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("point", POINTS)
def test_a_drain_killed_anywhere_posts_every_settle_once(books: Books, point: str) -> None:
    # given
    for number in range(SETTLED):
        books.served(supplier_pico=number)
    # when
    with drainer(point) as process:
        died_of = process.wait(PATIENCE_S)
    # then
    assert died_of == -9
    books.drain()
    assert UsageEvent.objects.count() == SETTLED
    assert books.account("revenue") == -SETTLED * COST_PICO
    assert books.balance().spent_pico == SETTLED * COST_PICO
    assert books.check() == {}


def payers(books: Books, count: int) -> list[Desk]:
    """Tenants of other shards, so that drains have something to share out."""
    made = []
    for number in range(count):
        tenant = Tenant.objects.create(slug=f"payer-{number}", name=f"Payer {number}")
        credit.grant(tenant=tenant, amount_pico=10**12, reason="start", created_by="test")
        shard = registers.shard_of(tenant.pk)
        rebuild.rebuild(books.desk.client, shard, now=desks.at(desks.NOON_MS))
        epoch = ShardEpoch.objects.get(shard=shard).epoch
        desk = Desk(books.desk.client, tenant=tenant.pk, epoch=epoch, price=books.price.pk)
        made.append(desk)
    return made


def test_three_drains_at_once_of_which_one_keeps_dying_post_everything_once(books: Books) -> None:
    # given
    desks_open = payers(books, 6)
    settled = 0
    # when
    with drainer(), drainer():
        for point in ("committed", "written", "half acknowledged"):
            with drainer(point) as dying:
                for _ in range(10):
                    for desk in desks_open:
                        Books(desk, books.tenant, books.price).served(supplier_pico=7)
                        settled += 1
                    time.sleep(0.05)
                # It may find every shard busy, and live.
                dying.poll()
        eventually(lambda: UsageEvent.objects.count() == settled)
    # then
    books.drain()
    assert UsageEvent.objects.count() == settled
    paid = AccountSum.objects.filter(code="usage", account__kind="tenant_credit")
    assert paid.aggregate(total=Sum("amount_pico"))["total"] == settled * COST_PICO
    assert UsageDay.objects.aggregate(total=Sum("cost_pico"))["total"] == settled * COST_PICO
    assert books.check() == {}
