"""Refused requests reach Postgres once, and a broken note stops none of the others."""

import json
import uuid

import pytest
import redis

from billing.registers import REFUSALS_STREAM
from gateway import refusals
from gateway.models import Refusal
from tests.people import Person


def _note(client: redis.Redis, person: Person, **changed: object) -> str:
    fields = {
        "request_id": str(uuid.uuid4()),
        "tenant": person.tenant.pk,
        "key": 5,
        "model": "small",
        "status": 402,
        "code": "over_budget",
        "message": "The budget is spent.",
        "at_ms": 1_795_000_000_000,
        "detail": {"left_nano": 12},
    } | changed
    client.xadd(REFUSALS_STREAM, {"r": json.dumps(fields)})
    return str(fields["request_id"])


@pytest.mark.django_db(transaction=True)
def test_a_refusal_is_kept_and_leaves_the_stream(alice: Person, redis_client: redis.Redis) -> None:
    # given
    request_id = _note(redis_client, alice)

    # when
    read = [refusals.record(redis_client) for _ in range(2)]

    # then
    assert read == [1, 0]
    kept = Refusal.objects.get()
    assert (str(kept.request_id), kept.status, kept.code) == (request_id, 402, "over_budget")
    assert kept.detail == {"left_nano": 12}


def test_noted_twice_is_kept_once(alice: Person, redis_client: redis.Redis) -> None:
    # given
    same = str(uuid.uuid4())
    for _ in range(2):
        _note(redis_client, alice, request_id=same)

    # when
    refusals.record(redis_client)

    # then
    assert Refusal.objects.count() == 1


def test_what_cannot_be_read_or_has_no_tenant_is_dropped(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given
    redis_client.xadd(REFUSALS_STREAM, {"r": b"{broken"})
    redis_client.xadd(REFUSALS_STREAM, {"x": b"1"})
    _note(redis_client, alice, tenant=999_999)
    kept = _note(redis_client, alice)

    # when
    refusals.record(redis_client)

    # then
    assert [str(r.request_id) for r in Refusal.objects.all()] == [kept]


def test_what_postgres_does_not_take_costs_only_itself(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given
    _note(redis_client, alice, model="a\0b")
    _note(redis_client, alice, detail={"reason": "a\0b"})
    _note(redis_client, alice, key=2**70)
    _note(redis_client, alice, request_id="not one")
    _note(redis_client, alice, status=2**40)
    _note(redis_client, alice, at_ms=2**60)
    kept = _note(redis_client, alice)

    # when
    refusals.record(redis_client)

    # then
    assert [str(r.request_id) for r in Refusal.objects.all()] == [kept]
