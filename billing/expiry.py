"""Sweeps holds whose owner fell silent: released, charged to their last checkpoint, told once."""

import logging
from typing import Final

import redis

from billing import holds, registers
from billing.errors import Cold
from billing.models import ShardEpoch
from billing.redis_connection import run

logger = logging.getLogger(__name__)

PER_SHARD_MAX: Final = 500


def expire_due(client: redis.Redis, *, now_ms: int) -> int:
    """Expire every hold whose lease ran out; returns how many. Cold shards wait for a rebuild."""
    epochs = dict(ShardEpoch.objects.values_list("shard", "epoch"))
    expired = 0
    for shard, requests in _due(client, now_ms).items():
        for request_id in requests:
            call = holds.expire_call(
                shard=shard,
                request_id=request_id,
                now_ms=now_ms,
                epoch=epochs.get(shard, ""),
            )
            try:
                expired += holds.read_expire(run(client, call))
            except Cold:
                logger.warning("shard %d is cold; its holds expire after the rebuild", shard)
                break
            except redis.ResponseError:
                # One hold that cannot be booked must not keep all others from expiring.
                logger.exception("the hold of %s cannot expire", request_id)
    return expired


def _due(client: redis.Redis, now_ms: int) -> dict[int, list[str]]:
    with client.pipeline(transaction=False) as pipe:
        for shard in range(registers.SHARDS):
            key = registers.leases_key(registers.tag_of_shard(shard))
            pipe.zrangebyscore(key, "-inf", now_ms, start=0, num=PER_SHARD_MAX)
        replies = pipe.execute()
    return {
        shard: [request.decode() for request in due] for shard, due in enumerate(replies) if due
    }
