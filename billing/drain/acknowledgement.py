"""Acknowledges drained entries, and corrects their registers in the same script.

The correction is applied by whoever acknowledges, and an entry is acknowledged once: three
deliveries correct once.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import redis
from django.db.models import F

from billing import registers
from billing.models import ShardEpoch
from billing.money import PICO_PER_NANO
from billing.redis.connection import run
from billing.redis.declared import EntryRow, GroupRow
from billing.redis.scripts import ACK, ACKNOWLEDGED, Call

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
        acknowledged += ACKNOWLEDGED.read(run(client, call))["entries"]
    return acknowledged


def _call(tag: str, epoch: str, entries: Sequence[Acknowledgement]) -> Call:
    """Entries that count in the same registers name them once; most need no correction at all."""
    exact = [entry.entry_id for entry in entries if entry.is_exact]
    positions: dict[str, int] = {}

    def named(keys: Iterable[str]) -> str:
        return " ".join(str(positions.setdefault(key, len(positions) + 1)) for key in keys)

    groups: dict[tuple[int, tuple[str, ...], tuple[str, ...]], int] = {}
    group_rows: list[GroupRow] = []
    entry_rows: list[EntryRow] = []
    for entry in entries:
        if entry.is_exact:
            continue
        group = groups.setdefault(
            (entry.tenant, entry.debited_keys, entry.missed_keys), len(groups) + 1
        )
        if group > len(group_rows):
            debited = named((registers.tenant_key(tag, entry.tenant), *entry.debited_keys))
            group_rows.append({"debited": debited, "missed": named(entry.missed_keys)})
        entry_rows.append(_row(entry, group))
    return ACK.call(
        {
            "epoch_key": registers.epoch_key(tag),
            "stream_key": registers.stream_key(tag),
            "epoch": epoch,
            "drain": registers.GROUP_LEDGER,
            "exact": " ".join(exact),
            "registers": [{"key": key} for key in positions],
            "groups": group_rows,
            "entries": entry_rows,
        }
    )


def _row(entry: Acknowledgement, group: int) -> EntryRow:
    nano, pico = divmod(entry.difference_pico, PICO_PER_NANO)
    missed_nano, missed_pico = divmod(entry.missed_pico, PICO_PER_NANO)
    return {
        "group": group,
        "id": entry.entry_id,
        "nano": nano,
        "pico": pico,
        "missed_nano": missed_nano,
        "missed_pico": missed_pico,
    }
