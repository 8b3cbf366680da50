"""A past of many events, written by SQL as the drain would have written it."""

import functools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import django
import redis
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from bench.drain import figures, stage
from bench.drain.figures import say
from bench.drain.posted_rows import House, house_terms, keep_writing, write
from billing import registers
from billing.integrity import invariants
from billing.models import InvariantCheck
from billing.operations import rebuild
from gateway.database import time_limits
from gateway.kinds import Role
from gateway.models import Member, Team

STEPS: Final = 10
CHUNK: Final = 100_000
TENANTS: Final = 100
MONTH: Final = timedelta(days=30)
# As many as a drain posts at once, and numbers that no event of the past has.
BATCH: Final = 4_000
EXTRA: Final = 10**12
READS: Final = 7
SETTLING_S: Final = 3
INDEX: Final = "bench_usage_model"

ACCOUNTS: Final = """
    INSERT INTO billing_account (kind, tenant_id, supplier)
    SELECT 'tenant_credit', tenant, '' FROM unnest(%(tenants)s::bigint[]) tenant
    UNION SELECT 'revenue', NULL, ''
    UNION SELECT kind, NULL, split_part(sku, '/', 1) FROM unnest(%(skus)s::text[]) sku,
        unnest(ARRAY['cost_of_sales', 'provider_payable']) kind
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Past:
    """When the first event was, and how far apart they are."""

    began: datetime
    per_event: timedelta


def prepare(client: redis.Redis, *, tenants: int) -> House:
    market = stage.prepare(client, tenants=tenants)
    first = market.tenants[0]
    user = User.objects.create_user(username="past", email="past@example.org")
    team = Team.objects.create(tenant_id=first, slug="main", name="Main")
    Member.objects.create(user=user, tenant_id=first, team=team, role=Role.OWNER)
    house = House(
        tenants=market.tenants,
        skus=tuple(market.prices),
        versions=tuple(tiers[0].version for tiers in market.prices.values()),
        username=user.username,
    )
    with connection.cursor() as cursor:
        cursor.execute(ACCOUNTS, house_terms(house))
    return house


def overview(house: House) -> None:
    """The page as the busiest tenant's owner sees it, templates and all."""
    browser = Client()
    browser.force_login(User.objects.get(username=house.username))
    answer = browser.get("/overview/?span=month")
    if answer.status_code != 200:
        raise AssertionError(answer.status_code)


def measure(redis_url: str, events: int, kept: Path | None) -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        redis.Redis.from_url(redis_url) as client,
        ProcessPoolExecutor(2, mp_context=spawn, initializer=django.setup) as writers,
        figures.written(kept) as keep,
    ):
        house = prepare(client, tenants=TENANTS)
        past = Past(datetime.now(UTC) - MONTH, MONTH / events)
        for step in range(STEPS):
            span = range(step * events // STEPS, (step + 1) * events // STEPS)
            took = timed(lambda: write_all(writers, house, span, past))  # noqa: B023
            then = past.began + span.stop * past.per_event
            keep(_measured(client, house, span.stop, then, took))
        index_under_load(house)
        for shard in {tenant % registers.SHARDS for tenant in house.tenants}:
            rebuild.rebuild(client, shard, now=datetime.now(UTC))
        took = timed(lambda: invariants.audit(client, now=datetime.now(UTC), everything=True))
        broken = list(InvariantCheck.objects.filter(holds=False).values_list("name", "detail"))
        say(f"audit of every row: {took:.1f} s; broken: {broken}")


def _measured(
    client: redis.Redis, house: House, events: int, then: datetime, wrote_s: float
) -> dict[str, float]:
    checked = timed(lambda: invariants.check_all(client, now=then))
    again = timed(lambda: invariants.check_all(client, now=then))
    sealed = timed(lambda: invariants.audit(client, now=then))
    audited = timed(lambda: invariants.audit(client, now=then))
    month = sorted(timed(lambda: overview(house)) for _ in range(READS))
    posted = sorted(
        timed(functools.partial(post_more, house, place, then))
        for place in range(events, events + READS)
    )
    say(
        f"{events:>11,} events: month view {month[READS // 2] * 1e3:4.0f} ms"
        f" ({month[0] * 1e3:.0f} to {month[-1] * 1e3:.0f}); check of this step {checked:5.2f} s,"
        f" of 15 minutes {again:5.2f} s, audit that seals it {sealed:5.1f} s,"
        f" the next audit {audited:5.2f} s; {BATCH:,} more posted and"
        f" rolled up in {posted[READS // 2] * 1e3:.0f} ms; written in {wrote_s:.0f} s"
    )
    return {
        "events": events,
        "month_ms": month[READS // 2] * 1e3,
        "check_s": checked,
        "again_s": again,
        "sealed_s": sealed,
        "audit_s": audited,
        "rollups_us": posted[READS // 2] / BATCH * 1e6,
    }


def post_more(house: House, place: int, at: datetime) -> None:
    """One more batch of new events, with their rollups, as large as a drain's."""
    first = EXTRA + place * BATCH
    write(house, house.tenants, first=first, count=BATCH, began=at, per_event=timedelta(0))


def write_all(writers: Executor, house: House, span: range, past: Past) -> None:
    """Side by side: one writes the busiest tenant's half, the other what all the rest have."""
    shares = (house.tenants[:1], house.tenants[1:])
    writing = [writers.submit(write_share, house, share, span, past) for share in shares]
    for share_written in writing:
        share_written.result()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def write_share(house: House, share: Sequence[int], span: range, past: Past) -> None:
    for at in range(span.start, span.stop, CHUNK):
        count = min(CHUNK, span.stop - at)
        write(house, share, first=at, count=count, began=past.began, per_event=past.per_event)


def index_under_load(house: House) -> None:
    spawn = multiprocessing.get_context("spawn")
    for name, how in (("no index", None), ("concurrently", "CONCURRENTLY"), ("plainly", "")):
        stop, worst = spawn.Event(), spawn.Value("d", 0.0)
        writer = spawn.Process(target=keep_writing, args=(house, stop, worst))
        writer.start()
        time.sleep(SETTLING_S)
        took = timed(lambda: make_index(how))  # noqa: B023
        stop.set()
        writer.join()
        say(f"{name}: {took:.1f} s; the longest write took {worst.value * 1e3:.0f} ms")


def make_index(how: str | None) -> None:
    if how is None:
        time.sleep(SETTLING_S)
        return
    # As `migrate` does.
    with time_limits.unlimited(connection), connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX {how} {INDEX} ON billing_usageevent (model, occurred_at)")
        cursor.execute(f"DROP INDEX {how} {INDEX}")


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
