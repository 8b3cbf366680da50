"""Sweeps holds whose owner fell silent: released, charged to their last checkpoint, told once."""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import redis

from billing import fault_isolation, registers
from billing.errors import Cold
from billing.holding import holds
from billing.models import ShardEpoch
from billing.redis.connection import run

logger = logging.getLogger(__name__)

PER_SHARD_MAX: Final = 500


def surely_past_ms(client: redis.Redis, *, now: datetime) -> int:
    """The earlier of our clock and Redis': a clock that runs ahead must not end open requests."""
    seconds, micros = client.time()
    return min(registers.moment_ms(now), seconds * 1000 + micros // 1000)


def expire_holds(client: redis.Redis, *, now_ms: int) -> int:
    """Expire every hold whose lease ran out; returns how many. Cold shards wait for a rebuild."""
    epochs = dict(ShardEpoch.objects.values_list("shard", "epoch"))

    def expire(due: tuple[int, list[bytes] | Exception]) -> int:
        shard, requests = due
        if isinstance(requests, Exception):
            raise requests
        return _expire(client, shard, requests, epochs.get(shard, ""), now_ms)

    due = _due(client, now_ms)
    return sum(fault_isolation.each(due.items(), expire, name=lambda item: f"shard {item[0]}"))


def _expire(
    client: redis.Redis, shard: int, requests: Iterable[bytes], epoch: str, now_ms: int
) -> int:
    expired = 0
    for request in requests:
        call = holds.expire_call(
            shard=shard, request_id=request.decode(), now_ms=now_ms, epoch=epoch
        )
        # One hold that cannot be booked must not keep all others from expiring.
        with fault_isolation.apart(f"hold {request.decode()}"):
            try:
                expired += holds.read_expire(run(client, call))
            except Cold:
                logger.warning("shard %d is cold; its holds expire after the rebuild", shard)
                break
    return expired


def _due(client: redis.Redis, now_ms: int) -> dict[int, list[bytes] | Exception]:
    with client.pipeline(transaction=False) as pipe:
        for shard in range(registers.SHARDS):
            key = registers.leases_key(registers.tag_of_shard(shard))
            pipe.zrangebyscore(key, "-inf", now_ms, start=0, num=PER_SHARD_MAX)
        replies = pipe.execute(raise_on_error=False)
    return {shard: due for shard, due in enumerate(replies) if due}
