"""Acknowledges drained entries, and corrects their registers in the same script.

The correction is applied by whoever acknowledges, and an entry is acknowledged once: three
deliveries correct once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import redis
from django.db.models import F

from billing import registers
from billing.lua_scripts import ACK, Argument, Call
from billing.models import ShardEpoch
from billing.money import PICO_PER_NANO
from billing.redis_connection import run

CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """`missed_keys` are registers that the settle did not know of: they get the whole amount."""

    entry_id: str
    tenant: int
    debited_keys: tuple[str, ...]
    difference_pico: int
    missed_keys: tuple[str, ...]
    missed_pico: int


def acknowledge(client: redis.Redis, shard: int, entries: Sequence[Acknowledgement]) -> int:
    """Returns how many of them had not been acknowledged before."""
    tag = registers.tag_of_shard(shard)
    epoch = ShardEpoch.objects.filter(shard=shard).values_list(F("epoch"), flat=True).first()
    acknowledged = 0
    for start in range(0, len(entries), CHUNK):
        call = _call(tag, epoch or "", entries[start : start + CHUNK])
        acknowledged += int(run(client, call)[1])
    return acknowledged


def _call(tag: str, epoch: str, entries: Sequence[Acknowledgement]) -> Call:
    positions: dict[str, int] = {}
    args: list[Argument] = [epoch, registers.GROUP_LEDGER, len(entries)]
    for entry in entries:
        debited = (registers.tenant_key(tag, entry.tenant), *entry.debited_keys)
        args += (entry.entry_id, len(debited) + len(entry.missed_keys))
        for keys, pico in (
            (debited, entry.difference_pico),
            (entry.missed_keys, entry.missed_pico),
        ):
            nano, rest = divmod(pico, PICO_PER_NANO)
            for key in keys:
                args += (positions.setdefault(key, len(positions) + 1), nano, rest)
    keys_used: list[bytes | str] = [registers.epoch_key(tag), registers.stream_key(tag)]
    return Call(ACK, [*keys_used, *positions], args)
