"""API keys: shown once, stored as a hash, revoked everywhere at once."""

from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
import redis
from django.apps import apps
from redis.backoff import NoBackoff
from redis.retry import Retry

from billing import registers
from billing.holding import holds, key_makers
from billing.registers import SNAPSHOT_VERSION_KEY
from gateway.models import ApiKey
from gateway.tenants import keys
from gateway.tenants.keys import KeyRefused
from tests.people import Person

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def _issue(person: Person, **changed: object) -> keys.IssuedKey:
    fields = {"name": "CI", "created_by": "alice", "now": NOW} | changed
    return keys.issue(tenant=person.tenant, **fields)  # type: ignore[arg-type]


def test_a_key_is_shown_once_and_stored_as_a_hash(alice: Person) -> None:
    # when
    issued = _issue(alice)

    # then
    prefix, public_id, secret = issued.plain.split("-")
    assert (prefix, public_id, len(secret)) == ("tk", issued.key.public_id, 43)
    stored = ApiKey.objects.values().get()
    assert not any(secret in str(value) for value in stored.values())
    assert bytes(stored["key_hash"]) == keys.hash_of(issued.plain)
    assert keys.find(issued.plain) == issued.key


def test_a_revoked_key_is_told_to_redis_before_the_call_returns(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given
    key = _issue(alice).key

    # when
    keys.revoke(key=key, actor="alice", now=NOW)
    keys.revoke(key=key, actor="alice", now=NOW + timedelta(hours=1))

    # then
    tag = registers.shard_tag(alice.tenant.pk)
    status = redis_client.hget(registers.key_status_key(tag, alice.tenant.pk), str(key.pk))
    assert status == holds.REVOKED.encode()
    assert ApiKey.objects.get().revoked_at == NOW
    assert not keys.is_live(key, NOW)


@pytest.mark.django_db(transaction=True)
def test_issuing_and_revoking_signal_the_data_plane(
    alice: Person, redis_client: redis.Redis
) -> None:
    # when
    key = _issue(alice).key
    after_issue = redis_client.get(SNAPSHOT_VERSION_KEY)
    keys.revoke(key=key, actor="alice", now=NOW)

    # then
    assert (after_issue, redis_client.get(SNAPSHOT_VERSION_KEY)) == (b"1", b"2")


def test_while_redis_is_away_nothing_is_revoked_and_the_caller_is_told(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    key = _issue(alice).key
    nobody = redis.Redis(unix_socket_path="/nonexistent.sock", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(keys, "connection", lambda: nobody)

    # when
    with pytest.raises(redis.ConnectionError):
        keys.revoke(key=key, actor="alice", now=NOW)

    # then
    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize(
    "changed",
    [
        {"name": " "},
        {"name": "x" * 81},
        {"scopes": ()},
        {"scopes": ("root",)},
        {"expires_at": NOW},
        {"models_allowed": ["m"] * 201},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(alice: Person, changed: dict[str, object]) -> None:
    with pytest.raises(KeyRefused):
        _issue(alice, **changed)
    assert not ApiKey.objects.exists()


def test_a_key_cannot_join_a_team_of_another_tenant(alice: Person, charlie: Person) -> None:
    with pytest.raises(KeyRefused, match="another tenant"):
        _issue(alice, team=charlie.team)


def test_lines_of_keys_made_before_are_found_by_who_made_them(alice: Person) -> None:
    # given a key that a key made, and that another, before lines were kept
    migration = import_module("gateway.migrations.0007_lines_of_made_keys")
    maker = _issue(alice).key
    child = _issue(alice, created_by=f"key {maker.public_id}").key
    grandchild = _issue(alice, created_by=f"key {child.public_id}").key
    _issue(alice, created_by="key of nobody")
    # when
    migration.keep_lines(apps, None)
    # then
    assert key_makers.lines([alice.tenant.pk]) == {
        (alice.tenant.pk, child.pk): (maker.pk,),
        (alice.tenant.pk, grandchild.pk): (child.pk, maker.pk),
    }
