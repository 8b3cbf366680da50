"""Acknowledges drained entries, and corrects their registers in the same script.

The correction is applied by whoever acknowledges, and an entry is acknowledged once: three
deliveries correct once.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
import redis
from django.db.models import F

from billing import registers
from billing.models import ShardEpoch
from billing.money import PICO_PER_NANO
from billing.redis.connection import run
from billing.redis.scripts import ACK, Argument, Call

CHUNK: Final = 500


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`missed_keys` are registers that the settle did not know of: they get the whole amount."""

    entry_id: str
    tenant: int
    debited_keys: tuple[str, ...]
    difference_pico: int
    missed_keys: tuple[str, ...]
    missed_pico: int

    @property
    def is_exact(self) -> bool:
        return not self.difference_pico and not self.missed_keys


def epoch_of(shard: int) -> str:
    """By which the shard's registers are known to be of PostgreSQL's making."""
    return ShardEpoch.objects.filter(shard=shard).values_list(F("epoch"), flat=True).first() or ""


def acknowledge(
    client: redis.Redis, shard: int, epoch: str, entries: Sequence[Acknowledgement]
) -> int:
    """Asks Redis only. Returns how many of them had not been acknowledged before."""
    tag = registers.tag_of_shard(shard)
    acknowledged = 0
    for start in range(0, len(entries), CHUNK):
        call = _call(tag, epoch, entries[start : start + CHUNK])
        acknowledged += int(run(client, call)[1])
    return acknowledged


def _call(tag: str, epoch: str, entries: Sequence[Acknowledgement]) -> Call:
    """Entries that count in the same registers name them once; most need no correction at all."""
    exact: list[Argument] = []
    groups: dict[tuple[int, tuple[str, ...], tuple[str, ...]], list[Acknowledgement]]
    groups = defaultdict(list)
    for entry in entries:
        if entry.is_exact:
            exact.append(entry.entry_id)
        else:
            groups[entry.tenant, entry.debited_keys, entry.missed_keys].append(entry)
    positions: dict[str, int] = {}
    args = [epoch, registers.GROUP_LEDGER, len(exact), *exact, len(groups)]
    for (tenant, debited, missed), members in groups.items():
        parts = [(registers.tenant_key(tag, tenant), *debited)]
        if missed:
            parts.append(missed)
        args.append(len(parts))
        for keys in parts:
            args += (len(keys), *(positions.setdefault(key, len(positions) + 1) for key in keys))
        args.append(len(members))
        for entry in members:
            args += (entry.entry_id, *divmod(entry.difference_pico, PICO_PER_NANO))
            if missed:
                args += divmod(entry.missed_pico, PICO_PER_NANO)
    keys_used: list[bytes | str] = [registers.epoch_key(tag), registers.stream_key(tag)]
    return Call(ACK, [*keys_used, *positions], args)
