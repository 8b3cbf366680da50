"""Whatever writes what data planes work from, these are told of it: once, when it commits."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, models, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.credit import balances as credit
from billing.holding import hold_modes
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import (
    MadeKey,
    PlanAssignment,
    PriceList,
    PriceVersion,
    Quota,
    RateLimit,
    Sku,
    Tenant,
)
from billing.operations import rebuild
from billing.prices import lists as price_lists
from billing.prices import plans
from billing.prices import versions as prices
from billing.registers import SNAPSHOT_VERSION_KEY
from billing.snapshot_rows import SnapshotRow
from gateway.dataplane.snapshots.loader import DatabaseSource
from gateway.models import ApiKey, RoutingPolicy
from gateway.tenants import keys, policies, teams, terms
from providers.machines import workers
from providers.market import credentials, offers
from providers.models import Credential, Model, Offer, Provider, Worker
from tests.people import Person
from tests.providers.made_offers import make_offer, publish, registration, worker_key
from tests.test_tidy import parsed

USD = 10**12
# Read by the snapshot, and learned by the clock: what was counted or measured, every few seconds;
# epochs, for a register that is cold asks for a new snapshot itself; and which release was here.
BY_THE_CLOCK = {
    "billing_callprofile",
    "billing_shardepoch",
    "providers_measurementrollup",
    "providers_countedtexts",
    "django_migrations",
}
SNAPSHOT_ROWS = sorted(
    (model for model in apps.get_models() if issubclass(model, SnapshotRow)),
    key=lambda model: model._meta.label,
)
# PostgreSQL refuses to change these but by their services: an end, or a plan that is withdrawn.
CHANGEABLE = [row for row in SNAPSHOT_ROWS if row not in (Sku, PlanAssignment, PriceVersion)]


@pytest.fixture
def full(alice: Person, redis_client: redis.Redis) -> Person:
    """One of every row that a snapshot reads."""
    tenant, now = alice.tenant, timezone.now()
    rebuild.rebuild(redis_client, tenant.shard, now=now)
    first = keys.issue(tenant=tenant, team=alice.team, name="first", created_by="ada", now=now).key
    made = keys.issue(tenant=tenant, team=alice.team, name="made", created_by="ada", now=now).key
    MadeKey.objects.create(tenant=tenant, api_key_id=made.pk, maker_id=first.pk)
    quotas.set_quota(tenant=tenant, cap=_cap(tenant), actor="ada", now=now)
    scope: dict[str, Any] = {"scope_kind": "tenant", "scope_id": tenant.pk}
    quotas.set_rate_limit(tenant=tenant, actor="ada", now=now, rpm=5, **scope)
    policies.set_policy(tenant=tenant, actor="ada", now=now, kind="fastest")
    PriceList.objects.create(kind=PriceList.Kind.PLAN, slug="startup", name="Startup")
    plan = PriceList.objects.get()
    plans.assign(tenant=tenant, plan=plan, actor="ada", now=now)
    offer = make_offer()
    publish(offer.sku, ("0.1", "0.05", "0.4"), since=now - timedelta(days=1))
    credentials.store(provider=offer.provider, label="main", secret="sk-1234567")
    workers.register(key=worker_key()[0], registration=registration(), now=now)
    return alice


def _cap(tenant: Tenant, pico: int = USD) -> Cap:
    return Cap(scope_kind="tenant", scope_id=str(tenant.pk), window="month", limit_pico=pico)


@pytest.fixture
def told(
    redis_client: redis.Redis, django_capture_on_commit_callbacks: Callable[..., Any]
) -> Callable[[Callable[[], object]], int]:
    """By how much doing something, in one transaction, raised the snapshot's version."""

    def version() -> int:
        return int(redis_client.get(SNAPSHOT_VERSION_KEY) or 0)

    def count(act: Callable[[], object]) -> int:
        before = version()
        with django_capture_on_commit_callbacks(execute=True):
            act()
            assert version() == before, "told before it was committed"
        return version() - before

    return count


Told = Callable[[Callable[[], object]], int]


@pytest.mark.django_db(transaction=True)
def test_every_table_that_the_snapshot_reads_tells_of_its_changes(full: Person) -> None:
    source, key = DatabaseSource(), ApiKey.objects.all()[0]
    now_ms = int(timezone.now().timestamp() * 1000)

    with CaptureQueriesContext(connection) as queries:
        loaded = source.load(now_ms)
        source.find_key(bytes(key.key_hash))
        source.credit_version(full.tenant.pk)

    assert len(loaded.keys) == 2
    assert set(loaded.offers_by_model) == {"small", "smollm2-135m-instruct"}
    read = {
        table
        for query in queries
        for table in re.findall(r'(?:FROM|JOIN) "?(\w+)"?', query["sql"])
        if table in {*connection.introspection.table_names()}
    }
    telling = {model._meta.db_table for model in SNAPSHOT_ROWS}
    assert read - BY_THE_CLOCK == telling


@pytest.mark.django_db(transaction=True)
def test_what_it_does_not_tell_of_is_read_by_no_snapshot(
    full: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in SNAPSHOT_ROWS:
        columns = {field.name for field in model._meta.concrete_fields}
        assert model.not_in_snapshot <= columns
        for name in model.not_in_snapshot:
            monkeypatch.setattr(model, name, _Unread(f"{model.__name__}.{name}"))

    loaded = DatabaseSource().load(int(timezone.now().timestamp() * 1000))

    assert len(loaded.keys) == 2


class _Unread:
    """In the place of a column's attribute: takes a value, and gives none."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, row: object, kind: type | None = None) -> object:
        assert row is None, f"{self.name} is read by the snapshot"
        return self

    def __set__(self, row: object, value: object) -> None:
        pass


def _saved(row: Any) -> None:
    row.save()


def _updated(row: Any) -> None:
    column = _read_column(row)
    type(row).objects.filter(pk=row.pk).update(**{column: getattr(row, column)})


def _updated_in_bulk(row: Any) -> None:
    type(row).objects.bulk_update([row], [_read_column(row)])


def _read_column(row: Any) -> str:
    names = [field.name for field in row._meta.concrete_fields if not field.primary_key]
    return next(name for name in names if name not in row.not_in_snapshot)


@pytest.mark.parametrize("model", CHANGEABLE, ids=lambda model: model._meta.label)
@pytest.mark.parametrize("write", [_saved, _updated, _updated_in_bulk])
def test_any_write_is_told_once_when_it_commits(
    full: Person, told: Told, model: type[models.Model], write: Callable[[Any], None]
) -> None:
    row = model._default_manager.all()[0]

    def twice() -> None:
        with transaction.atomic():
            write(row)
        with transaction.atomic():
            write(row)

    assert told(twice) == 1


def test_rows_that_come_and_go_are_told_of(full: Person, told: Told) -> None:
    policy = RoutingPolicy.objects.get()
    fresh = [Sku(code="acme/one"), Sku(code="acme/two")]

    assert told(lambda: Sku.objects.bulk_create(fresh)) == 1
    assert told(policy.delete) == 1
    assert told(lambda: RateLimit.objects.all().delete()) == 1
    assert told(lambda: RateLimit.objects.all().delete()) == 0


def test_what_changes_nothing_or_only_what_nobody_reads_is_not_told(
    full: Person, told: Told
) -> None:
    worker = Worker.objects.get()

    assert told(lambda: Offer.objects.filter(pk=0).update(state="live")) == 0
    assert told(lambda: worker.save(update_fields=["load", "heartbeat_at"])) == 0
    assert told(lambda: Provider.objects.update(load={"running": 1})) == 0
    assert told(lambda: Tenant.objects.update(credit_version=9)) == 0
    assert told(lambda: Tenant.objects.update(credit_version=9, max_output_tokens=9)) == 1


def _roll_back() -> None:
    with transaction.atomic():
        Sku.objects.create(code="acme/never")
        transaction.set_rollback(True)


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_told_and_what_stays_is(redis_client: redis.Redis) -> None:
    def version() -> bytes | None:
        return redis_client.get(SNAPSHOT_VERSION_KEY)

    _roll_back()
    assert version() is None

    # when the first change goes with its savepoint, the second is told of all the same
    with transaction.atomic():
        _roll_back()
        Sku.objects.create(code="acme/stays")
        Model.objects.create(slug="small", name="Small")
    assert version() == b"1"

    # and the next transaction is another one
    Sku.objects.create(code="acme/next")
    assert version() == b"2"


def _services_of_a_tenant(person: Person) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each in turn, on what those before it have left."""
    tenant, now, who = person.tenant, timezone.now(), "ada"
    key, quota = ApiKey.objects.all()[0], Quota.objects.get()
    by: dict[str, Any] = {"tenant": tenant, "actor": who, "now": now}
    yield (
        "raise_quota",
        lambda: quotas.raise_quota(
            quota_id=quota.pk,
            limit_pico=2 * USD,
            until=now + timedelta(days=1),
            reason="launch",
            **by,
        ),
    )
    yield "set_quota", lambda: quotas.set_quota(cap=_cap(tenant, 5), **by)
    yield "remove_quota", lambda: quotas.remove_quota(quota_id=quota.pk, **by)
    scope: dict[str, Any] = {"scope_kind": "tenant", "scope_id": tenant.pk}
    yield "set_rate_limit", lambda: quotas.set_rate_limit(rpm=9, **scope, **by)
    yield "change_time_zone", lambda: quotas.change_time_zone(zone="Asia/Tokyo", **by)
    yield (
        "set_hold_mode",
        lambda: hold_modes.set_hold_mode(mode="expected", overdraft_pico=USD, **by),
    )
    yield "set_policy", lambda: policies.set_policy(kind="cheapest", **by)
    yield "reset_policy", lambda: policies.reset_policy(team=None, **by)
    yield "teams.write", lambda: teams.write(facts={"slug": "main", "name": "Prime"}, **by)
    yield (
        "keys.issue",
        lambda: keys.issue(tenant=tenant, team=None, name="next", created_by=who, now=now),
    )
    yield "keys.revoke", lambda: keys.revoke(key=key, actor=who, now=now)
    yield "plans.assign", lambda: plans.assign(plan=None, **by | {"now": timezone.now()})
    wanted: Any = {"plan": "startup", "plan_from": now + timedelta(days=9)}
    yield (
        "terms.change",
        lambda: terms.change(tenant=tenant, wanted=wanted, actor=who, is_operator=True, now=now),
    )
    yield (
        "plans.withdraw",
        lambda: plans.withdraw(assignment_id=plans.coming([tenant.pk], now)[0].pk, **by),
    )


def _services_of_the_market() -> Iterator[tuple[str, Callable[[], object]]]:
    now, who = timezone.now(), "ada"
    seller = Provider.objects.get(slug="acme")
    offer = seller.offers.get()
    yield (
        "price_lists.set_rule",
        lambda: price_lists.set_rule(
            price_list=PriceList.objects.get(), pattern="", change_ppm=-50_000, actor=who, now=now
        ),
    )
    yield "prices.publish", lambda: publish(offer.sku, ("1", "1", "1"), since=timezone.now())
    yield (
        "prices.withdraw",
        lambda: prices.withdraw(sku_code=offer.sku, at=timezone.now(), actor=who),
    )
    later = timezone.now() + timedelta(minutes=1)
    known: dict[str, Any] = {"provider_id": seller.pk}
    yield "mark_dead", lambda: credentials.mark_dead(reason="401", seen_at=later, **known)
    yield "clear_marks", lambda: credentials.clear_marks(**known)
    yield (
        "credentials.store",
        lambda: credentials.store(provider=seller, label="new", secret="sk-7654321"),
    )
    yield "rotate_all", lambda: credentials.rotate_all(now=now)
    yield "salt", lambda: offers.salt(seller.pk)
    yield (
        "set_state",
        lambda: offers.set_state(offer_id=offer.pk, state="demoted", reason="slow", now=now),
    )
    yield (
        "set_enabled",
        lambda: offers.set_enabled(offer=offer, enabled=False, actor=who, now=now),
    )
    again = registration(base_url="http://127.0.0.1:8109")
    worker = Worker.objects.get()
    yield "register", lambda: workers.register(key=worker.key, registration=again, now=now)


def test_every_service_tells_once(full: Person, told: Told) -> None:
    services = chain(_services_of_a_tenant(full), _services_of_the_market())
    found = {name: told(act) for name, act in services}

    assert found == dict.fromkeys(found, 1)


def test_services_that_refuse_or_find_nothing_to_do_tell_nobody(full: Person, told: Told) -> None:
    offer, now = Offer.objects.get(sku="acme/small"), timezone.now()
    live: dict[str, Any] = {"offer_id": offer.pk, "state": "live", "reason": "", "now": now}

    assert told(lambda: offers.set_state(**live)) == 0
    assert told(lambda: credentials.doubt(provider_id=offer.provider_id, seen_at=now)) == 0
    assert told(lambda: credit.grant(
        tenant=full.tenant, amount_pico=USD, reason="gift", created_by="ada",
    )) == 0  # fmt: skip


def test_a_form_of_the_admin_console_that_saves_by_itself_tells(
    full: Person, told: Told, client: Client
) -> None:
    client.force_login(User.objects.create_superuser("root"))
    model = Model.objects.get(slug="small")
    asked = {"slug": "small", "name": "Renamed", "creator": "", "context_length": "4096"}

    assert told(lambda: client.post(f"/admin/providers/model/{model.pk}/change/", asked)) == 1
    model.refresh_from_db()
    assert (model.name, model.context_length) == ("Renamed", 4096)


def test_credentials_deleted_from_a_list_are_told_of(
    full: Person, told: Told, client: Client
) -> None:
    client.force_login(User.objects.create_superuser("root"))
    chosen = {"_selected_action": [Credential.objects.get().pk], "action": "delete_selected"}

    assert told(lambda: client.post("/admin/providers/credential/", chosen | {"post": "yes"})) == 1
    assert not Credential.objects.exists()


def test_no_write_goes_around_the_rows() -> None:
    """Neither SQL by hand nor a manager that does not tell."""
    tables = "|".join(model._meta.db_table for model in SNAPSHOT_ROWS)
    by_hand = re.compile(
        rf"(?:INSERT INTO|UPDATE|DELETE FROM|COPY|TRUNCATE) \"?(?:{tables})\b", re.I
    )
    sources = parsed("billing", "gateway", "providers")
    assert len(sources) > 300
    for path, _, text in sources:
        assert not by_hand.search(text), path
        assert not re.search("_base_manager|_raw_delete", text), path
