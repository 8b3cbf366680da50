"""No periodic task reads a tenant's or the house's history.

Held for every task of the clockwork, over 300,000 events: what it reads grows with what is new
since its last run, and how often it asks with the tenants, not with what they did.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
import redis

from bench.drain import past
from bench.drain.posted_rows import House
from billing.integrity import invariants, new_rows
from billing.models import InvariantCheck, PriceVersion, Tenant
from gateway.celery import CLOCKWORK, app
from tests.gateway import long_history, plans
from tests.gateway.long_history import TENANTS, History
from tests.services import Services

NEW: Final = 400
# The same statement, some times for each tenant.
ASKED_MAX: Final = 3 * TENANTS
# A day's audit reads a thirtieth of all that is sealed again, and what no block has sealed yet.
READS_A_SHARE: Final = ("billing.tasks.audit_ledger",)


@pytest.fixture(scope="module")
def history(committed: None, services: Services) -> Iterator[History]:
    """Every task has caught up with it."""
    with redis.Redis.from_url(services.redis.url) as client:
        history = long_history.fresh(client)
        app.loader.import_default_modules()
        invariants.audit(client, now=datetime.now(UTC))
        for task in CLOCKWORK:
            app.tasks[task]()
        # A past of few, large transfers, some of them without entries, is none that a drain made.
        checked = datetime.now(UTC) + new_rows.OVERLAP
        InvariantCheck.objects.update(holds=True, verified_until=checked, broken_ids=[])
        yield history
        client.flushall()


def something_new() -> None:
    """Of every tenant, just now."""
    now = datetime.now(UTC)
    versions = PriceVersion.objects.filter(sku__code__contains="/model-")
    known = dict(versions.values_list("sku__code", "pk"))
    house = House(
        tenants=tuple(Tenant.objects.values_list("pk", flat=True)),
        skus=tuple(known),
        versions=tuple(known.values()),
        username="alice",
    )
    first = int(now.timestamp() * 1_000_000)
    past.write(house, house.tenants, first=first, count=NEW, began=now, per_event=timedelta(0))


def test_no_periodic_task_reads_a_history(history: History) -> None:
    wrong = {}
    for task in CLOCKWORK:
        # given
        something_new()
        # when
        with plans.work() as (asked, faults):
            app.tasks[task]()
        # then
        often = [f"{times} times {sql[:300]}" for sql, times in asked.items() if times > ASKED_MAX]
        if told := often + (faults if task not in READS_A_SHARE else []):
            wrong[task] = told

    assert wrong == {}
