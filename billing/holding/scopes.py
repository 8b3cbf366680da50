"""What a request is checked against: spend caps and rates, as registers in Redis. Pure.

Scopes are opaque (kind, id) pairs. Which register a cap has depends on the window its request is
in, and so on the time inside the request's id.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from billing import registers
from billing.money import REGISTER_NANO_MAX
from billing.redis.declared import MinuteRow, OpenRow, SpendRow


@dataclass(frozen=True, slots=True)
class SpendScope:
    """One spend cap of a request; `limit_nano` is rounded down. `id` as `registers.scope_part`
    writes it. Until `raised_until_ms` the limit is `raised_nano`. In shadow it refuses nothing
    and only says that it would have."""

    kind: str
    id: str
    window: str
    limit_nano: int
    zone: str = "UTC"
    raised_nano: int = 0
    raised_until_ms: int = 0
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class RateScope:
    kind: str
    id: str
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


def spend_rows(tag: str, tenant: int, scopes: Iterable[SpendScope], at_ms: int) -> list[SpendRow]:
    """The spend registers of a hold."""
    rows: list[SpendRow] = []
    for scope in scopes:
        key, goes_at_ms = register_of(tag, tenant, scope, at_ms)
        limit_nano = limit_of(scope, at_ms)
        rows.append({"key": key, "limit_nano": limit_nano, "goes_at_ms": goes_at_ms})
    return rows


def register_of(tag: str, tenant: int, scope: SpendScope, at_ms: int) -> tuple[str, int]:
    """The register of a cap in the window of this moment, and when it may go (0 = never)."""
    span = registers.span_of(scope.window, at_ms, scope.zone)
    key = registers.spend_key(tag, tenant, kind=scope.kind, scope=scope.id, bucket=span.bucket)
    return key, span.goes_at_ms


def limit_of(scope: SpendScope, at_ms: int) -> int:
    """As the scripts read it: a limit that no register can reach is none."""
    limit_nano = scope.raised_nano if at_ms < scope.raised_until_ms else scope.limit_nano
    if limit_nano >= REGISTER_NANO_MAX - 2:
        return -1
    if limit_nano < 0:
        limit_nano = 0
    return -2 - limit_nano if scope.shadow else limit_nano


def minute_rows(
    tag: str, tenant: int, rates: Iterable[RateScope], *, now_ms: int
) -> list[MinuteRow]:
    """The counters of this minute: of requests, and of their tokens."""
    minute = now_ms // registers.MS_PER_MINUTE
    rows: list[MinuteRow] = []
    for scope in rates:
        for unit, limit in (("rpm", scope.rpm), ("tpm", scope.tpm)):
            if limit is not None:
                key = registers.minute_key(
                    tag, tenant, kind=scope.kind, scope=scope.id, unit=unit, minute=minute
                )
                rows.append({"key": key, "limit": limit, "of_tokens": unit == "tpm"})
    return rows


def minute_goes_at_ms(now_ms: int) -> int:
    return now_ms - now_ms % registers.MS_PER_MINUTE + registers.MINUTE_KEPT_MS


def open_rows(tag: str, tenant: int, rates: Iterable[RateScope]) -> list[OpenRow]:
    """The sets of open requests, and how many each may have."""
    return [
        {
            "key": registers.open_key(tag, tenant, kind=scope.kind, scope=scope.id),
            "limit": scope.concurrency,
        }
        for scope in rates
        if scope.concurrency is not None
    ]


def scope_of(key: str) -> tuple[str, str, str]:
    """Which scope a register belongs to, read from its own name."""
    family, _tag, tenant, *rest = key.split(":")
    if family == "tenant":
        return "tenant", tenant, "credit"
    if family == "keys":
        return "key", "", ""
    if family == "sessions":
        return "tenant", tenant, "sessions"
    if family == "spend":
        window = registers.window_of_bucket(rest[2])
        return rest[0], registers.scope_of_part(rest[1]), window
    return rest[0], rest[1], "concurrency" if family == "open" else family
