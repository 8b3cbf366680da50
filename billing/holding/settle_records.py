"""A settle as it was meant, on its way into Redis: told again by id for as long as it takes.

The data plane's spool keeps these on disk. Those that Redis refused for good are handed over in a
stream of their own, to stand in the admin console. Pure.
"""

from typing import Final

import msgspec

from billing.holding import holds
from billing.holding.holds import Call, SettledAttempt, SpendScope
from billing.money import PICO_PER_NANO

REFUSED_STREAM: Final = "refused_settles"
# More than these, and data planes keep them on their own disks.
REFUSED_MAX: Final = 100_000
REASON_LENGTH_MAX: Final = 400
TOO_OLD: Final = "older than what Redis remembers of its expiry"


class SettleRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """No epoch: it is told under the one in force then.

    Without events it is the void of a hold that may have been placed without our hearing of it.
    """

    tenant: int
    key: int
    request_id: str
    now_ms: int
    tokens: int | None = None
    events: list[tuple[bytes, int]] = []
    spend: tuple[SpendScope, ...] = ()  # the hold's scopes, should Redis have lost it
    not_in: list[tuple[int, ...]] = []  # per event, where some of them do not count it

    @property
    def charge_pico(self) -> int:
        """What its attempts cost, rounded up to nano-dollars as they are debited."""
        return sum(charge_nano for _, charge_nano in self.events) * PICO_PER_NANO


encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(SettleRecord).decode


def call_of(record: SettleRecord, *, epoch: str) -> Call:
    """The settle or void that the record means."""
    if not record.events:
        return holds.void_call(
            tenant=record.tenant, request_id=record.request_id, now_ms=record.now_ms, epoch=epoch
        )
    return holds.settle_call(
        tenant=record.tenant,
        request_id=record.request_id,
        now_ms=record.now_ms,
        attempts=_attempts(record),
        epoch=epoch,
        spend=record.spend,
        tokens=record.tokens,
    )


def _attempts(record: SettleRecord) -> list[SettledAttempt]:
    not_in = record.not_in or [()] * len(record.events)
    return [
        SettledAttempt(event, charge_nano, positions)
        for (event, charge_nano), positions in zip(record.events, not_in, strict=True)
    ]


def refused(record: SettleRecord, reason: str) -> tuple[bytes | str, ...]:
    """The entry by which one that was refused for good is handed over."""
    return ("r", encode(record), "why", reason[:REASON_LENGTH_MAX])
