"""What each script is told and what it answers: the one table of its names, kinds and order.

From it Python builds a call's keys and arguments and Lua gets its locals, both under these names;
so nobody counts positions. A name ends in its unit.
"""

from typing import Annotated, TypedDict

from billing.redis.kinds import (
    Count,
    EntryId,
    Flag,
    Json,
    Maybe,
    Numbers,
    Register,
    RequestId,
    Whole,
    Word,
)

EpochKey = Annotated[str, Register("epoch:")]
ClockKey = Annotated[str, Register("clock:")]
TenantKey = Annotated[str, Register("tenant:")]
StatusKey = Annotated[str, Register("keys:")]
HoldKey = Annotated[str, Register("hold:")]
LeasesKey = Annotated[str, Register("leases:")]
StreamKey = Annotated[str, Register("usage:")]
SessionsKey = Annotated[str, Register("sessions:")]
SpendKey = Annotated[str, Register("spend:")]
MinuteKey = Annotated[str, Register("[rt]pm:")]
OpenKey = Annotated[str, Register("open:")]
MoneyKey = Annotated[str, Register("[ts]")]  # a tenant's or a cap's


class SpendRow(TypedDict):
    """`limit_nano`: -1 = none, -2 - n = n in shadow. `goes_at_ms`: 0 = never."""

    key: SpendKey
    limit_nano: Whole
    goes_at_ms: Count


class CapRow(TypedDict):
    key: SpendKey
    limit_nano: Whole


class MinuteRow(TypedDict):
    """One request, or its tokens; of these the settle gives back what was not used."""

    key: MinuteKey
    limit: Count
    of_tokens: Flag


class OpenRow(TypedDict):
    key: OpenKey
    limit: Count


class AttemptRow(TypedDict):
    """`not_in`: positions of the caps in which it does not count."""

    charge_nano: Count
    not_in: Numbers
    event: Json


class EventRow(TypedDict):
    event: Json


class RegisterRow(TypedDict):
    key: MoneyKey


class GroupRow(TypedDict):
    """Positions of the registers in which entries were debited, and of those they missed."""

    debited: Numbers
    missed: Numbers


class EntryRow(TypedDict):
    """What an entry's registers lack: the rest of the nano-dollars is in pico (0..999)."""

    group: Count
    id: EntryId
    nano: Whole
    pico: Count
    missed_nano: Whole
    missed_pico: Count


class OfHold(TypedDict):
    """What every script of one hold is told."""

    epoch_key: EpochKey
    clock_key: ClockKey
    hold_key: HoldKey
    leases_key: LeasesKey
    epoch: Word
    now_ms: Count
    request: RequestId


class Place(OfHold):
    """A session is the last of `spend`. `event` is what expiry appends if nobody settles."""

    tenant_key: TenantKey
    status_key: StatusKey
    stream_key: StreamKey
    sessions_key: SessionsKey
    key_id: Count
    hold_nano: Count
    ceiling_nano: Count
    overdraft_nano: Count
    tokens: Count
    lease_until_ms: Count
    deadline_ms: Count
    undrained_max: Count
    minute_goes_at_ms: Count
    in_session: Flag
    sessions_max: Count
    session_until_ms: Count
    spend: list[SpendRow]
    minute: list[MinuteRow]
    open: list[OpenRow]
    event: Json


class Counted(TypedDict):
    epoch_key: EpochKey
    clock_key: ClockKey
    tenant_key: TenantKey
    status_key: StatusKey
    epoch: Word
    now_ms: Count
    key_id: Count
    minute_goes_at_ms: Count
    minute: list[MinuteRow]


class Settle(OfHold):
    """`caps` are for a hold that nobody remembers; a register that is begun for one lasts for
    `cap_kept_ms`."""

    tenant_key: TenantKey
    stream_key: StreamKey
    tokens: Maybe
    kept_ms: Count
    cap_kept_ms: Count
    attempts: list[AttemptRow]
    caps: list[CapRow]


class Checkpoint(OfHold):
    lease_until_ms: Count
    charge_nano: Count
    not_in: Numbers
    finished: list[EventRow]
    event: Json


class Void(OfHold):
    tenant_key: TenantKey
    kept_ms: Count


class Expire(OfHold):
    stream_key: StreamKey
    kept_ms: Count


class Acknowledge(TypedDict):
    """`exact`: ids of entries with nothing to correct."""

    epoch_key: EpochKey
    stream_key: StreamKey
    epoch: Word
    drain: Word
    exact: Numbers
    registers: list[RegisterRow]
    groups: list[GroupRow]
    entries: list[EntryRow]


class Credit(TypedDict):
    """Where some of it ends: `ends` and `posted` as `ended` reads them. A grant that is told later
    than `late_ms` has let requests pass that it pays for."""

    tenant_key: TenantKey
    credit_nano: Whole
    version: Count
    status: Word
    ends: Numbers
    posted: Numbers
    now_ms: Count
    late_ms: Count


class Seed(TypedDict):
    """`lasts_ms`: 0 = for good."""

    epoch_key: EpochKey
    stream_key: StreamKey
    spend_key: SpendKey
    epoch: Word
    last_posted: EntryId
    nano: Whole
    pico: Count
    lasts_ms: Count


class Compare(TypedDict):
    epoch_key: EpochKey
    stream_key: StreamKey
    leases_key: LeasesKey
    epoch: Word
    last_posted: EntryId
    hold_prefix: Word
    registers: list[RegisterRow]


class Nothing(TypedDict):
    """An answer that is its own name."""


class GoneAnswer(TypedDict):
    """What became of the hold; empty where there is none."""

    state: Word


class RefusedAnswer(TypedDict):
    code: Word
    key: Word
    limit: Count
    left: Count
    retry_after_ms: Count


class PlacedAnswer(TypedDict):
    """`shadows`: the registers in shadow that it would not fit into."""

    balance_nano: Whole
    session_nano: Maybe
    shadows: list[str]


class SettledAnswer(TypedDict):
    charged_nano: Count
    overage_nano: Count
    late: Flag
    balance_nano: Whole
    session_nano: Maybe


class RenewedAnswer(TypedDict):
    lease_until_ms: Count


class ExpiredAnswer(TypedDict):
    charged_nano: Count


class AcknowledgedAnswer(TypedDict):
    entries: Count


class SeededAnswer(TypedDict):
    spent_nano: Whole


class ComparedRow(TypedDict):
    """`unread_nano`: debits in unread entries. `open_nano`: the sum of open holds. `credit_nano`:
    of a tenant's register alone."""

    exists: Flag
    spent_nano: Whole
    pico: Count
    held_nano: Whole
    unread_nano: Whole
    open_nano: Count
    credit_nano: Whole


class ComparedAnswer(TypedDict):
    rows: list[ComparedRow]
