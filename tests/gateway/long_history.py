"""A history of 300,000 events, and enough of everything else that a query per row is noticed.

Writing it takes most of a minute: a session does so once, and whoever asks again gets a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import redis
from django.contrib.auth.models import User
from django.db import connection

from bench.drain import past
from bench.drain.past import Past
from bench.drain.posted_rows import House, house_terms
from billing.credit import balances as credit
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import AlertChannel, Tenant
from billing.operations import rebuild
from gateway.database import time_limits
from gateway.kinds import Role
from gateway.models import Member, Team
from gateway.tenants import keys, sellers
from providers.models import Provider
from tests import people
from tests.gateway import belongings
from tests.gateway.belongings import Belongings
from tests.gateway.console_rows import offer, refused, served
from tests.people import Person

EVENTS: Final = 300_000
TENANTS: Final = 41
MANY: Final = 40
SPAN: Final = timedelta(days=90)
# The database that is copied, as it was written.
KEPT: Final = "long_history"
_kept: list["History"] = []


@dataclass(frozen=True, slots=True)
class Known:
    """Who asks, and what stands for things in an address."""

    member: str
    operator: str
    ids: Mapping[str, str]
    key: int
    unused_key: int

    def address(self, route: str) -> str:
        return belongings.filled(route, self.ids)


@dataclass(frozen=True)
class History:
    things: Belongings
    operator: User
    unused_key: int

    @property
    def known(self) -> Known:
        return Known(
            member=self.things.person.user.get_username(),
            operator=self.operator.get_username(),
            ids=self.things.ids,
            key=self.things.key.pk,
            unused_key=self.unused_key,
        )


def fresh(client: redis.Redis) -> History:
    """The whole history as nobody has touched it, in the database of this session and in Redis."""
    client.flushall()
    current = connection.settings_dict["NAME"]
    if _kept:
        _copy(KEPT, current)
        tenant = _kept[0].things.person.tenant
        rebuild.rebuild(client, tenant.shard, now=datetime.now(UTC))
    else:
        _kept.append(write(client))
        _copy(current, KEPT)
    return _kept[0]


def _copy(source: str, target: str) -> None:
    """PostgreSQL copies the files of a database that nobody is connected to."""
    connection.close()
    connection.close_pool()
    quoted = connection.ops.quote_name
    with connection._nodb_cursor() as cursor, time_limits.unlimited(cursor.db):
        cursor.execute(f"DROP DATABASE IF EXISTS {quoted(target)} WITH (FORCE)")
        cursor.execute(
            f"CREATE DATABASE {quoted(target)} TEMPLATE {quoted(source)} STRATEGY FILE_COPY"
        )


def write(client: redis.Redis, *, events: int = EVENTS, tenants: int = TENANTS) -> History:
    """Alice has every other event; a handful ended otherwise than usual."""
    now = datetime.now(UTC)
    sold = [offer(f"seller-{n % 8}", f"model-{n // 8}") for n in range(16)]
    alice = people.owner("alice", "Aurora")
    things = belongings.make(alice, sold[0], client, input_tokens=1_204_003)
    others = [Tenant.objects.create(slug=f"t{n}", name=f"T{n}") for n in range(tenants - 1)]
    for tenant in others:
        credit.grant(tenant=tenant, amount_pico=10**15, reason="tests", created_by="tests")
    house = House(
        tenants=(alice.tenant.pk, *(tenant.pk for tenant in others)),
        skus=tuple(each.sku for each in sold),
        versions=tuple(each.version.pk for each in sold),
        username="alice",
    )
    with connection.cursor() as cursor:
        cursor.execute(past.ACCOUNTS, house_terms(house))
    past.write_share(house, house.tenants, range(events), Past(now - SPAN, SPAN / events))
    for hours, outcome in enumerate(("upstream_cut", "deadline", "unknown"), start=1):
        served(alice.tenant, sold[1], at=now - timedelta(hours=hours), outcome=outcome)
    unused_key = _fill(alice, now)
    operator = User.objects.create_superuser("ada", "ada@example.org", "correct horse")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return History(things, operator, unused_key)


def _fill(alice: Person, now: datetime) -> int:
    """Many of what a page has a row for."""
    tenant, by = alice.tenant, {"actor": "alice", "now": now}
    for number in range(MANY):
        team = Team.objects.create(tenant=tenant, slug=f"team-{number}", name=f"Team {number}")
        user = User.objects.create_user(f"person-{number}", f"p{number}@example.org")
        Member.objects.create(user=user, tenant=tenant, team=team, role=Role.VIEWER)
        key = keys.issue(tenant=tenant, team=team, name=f"k{number}", created_by="alice", now=now)
        cap = Cap(scope_kind="team", scope_id=str(team.pk), window="day", limit_pico=10**15)
        quotas.set_quota(tenant=tenant, cap=cap, **by)
        refused(tenant, at=now - timedelta(minutes=number), key_id=key.key.pk)
        AlertChannel.objects.create(
            tenant=tenant, kind="mail", target=f"a{number}@example.org", created_by="alice",
            created_at=now,
        )  # fmt: skip
    provider = Provider.objects.get(slug="seller-1")
    sellers.register(team=alice.team, provider=provider, house_share_ppm=100_000, **by)
    return int(keys.issue(tenant=tenant, name="unused", created_by="alice", now=now).key.pk)
