"""The open holds that the admin console lists are those that Redis has."""

import msgspec
import redis
from django.utils import timezone

from billing import hold_queries, registers
from tests.people import Person


def test_an_open_hold_is_read_with_what_was_delivered(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given a hold as the scripts write it, and a lease whose hold is settled already
    tag = registers.shard_tag(alice.tenant.pk)
    now_ms = int(timezone.now().timestamp()) * 1000
    redis_client.zadd(registers.leases_key(tag), {"open-one": now_ms, "settled": now_ms + 1})
    redis_client.hset(
        registers.hold_key(tag, "open-one"),
        mapping={
            "state": "open",
            "tenant": registers.tenant_key(tag, alice.tenant.pk),
            "hold": 1_500,
            "charge": 20,
            "deadline": now_ms + 60_000,
            "event": msgspec.json.encode({"sku": "acme/small"}),
        },
    )
    redis_client.hset(registers.hold_key(tag, "settled"), mapping={"state": "settled"})

    # when
    found = hold_queries.open_holds(redis_client)

    # then
    (hold,) = found.shown
    assert found.count == 2
    assert (hold.tenant_id, hold.sku) == (alice.tenant.pk, "acme/small")
    assert (hold.hold_pico, hold.charged_pico) == (1_500_000, 20_000)
    assert (hold.deadline - hold.lease_ends).total_seconds() == 60
