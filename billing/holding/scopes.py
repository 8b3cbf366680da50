"""What a request is checked against: spend caps and rates, as registers in Redis. Pure.

Scopes are opaque (kind, id) pairs. Which register a cap has depends on the window its request is
in, and so on the time inside the request's id.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from billing import registers
from billing.money import REGISTER_NANO_MAX


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


def spend_part(
    tag: str, tenant: int, scopes: Iterable[SpendScope], at_ms: int
) -> tuple[list[str], list[int]]:
    """The spend registers of a hold, and for each its limit and when it may go."""
    keys: list[str] = []
    args: list[int] = []
    for scope in scopes:
        key, goes_at_ms = register_of(tag, tenant, scope, at_ms)
        keys.append(key)
        args += (limit_of(scope, at_ms), goes_at_ms)
    return keys, args


def register_of(tag: str, tenant: int, scope: SpendScope, at_ms: int) -> tuple[str, int]:
    """The register of a cap in the window of this moment, and when it may go (0 = never)."""
    if scope.window == registers.SESSION:
        bucket, goes_at_ms = registers.SESSION, 0
    else:
        span = registers.span_of(scope.window, at_ms, scope.zone)
        bucket, goes_at_ms = span.bucket, span.goes_at_ms
    key = registers.spend_key(tag, tenant, kind=scope.kind, scope=scope.id, bucket=bucket)
    return key, goes_at_ms


def limit_of(scope: SpendScope, at_ms: int) -> int:
    """As the scripts read it: a limit that no register can reach is none."""
    limit_nano = scope.raised_nano if at_ms < scope.raised_until_ms else scope.limit_nano
    if limit_nano >= REGISTER_NANO_MAX - 2:
        return -1
    return -2 - max(limit_nano, 0) if scope.shadow else max(limit_nano, 0)


def minute_part(
    tag: str, tenant: int, rates: Iterable[RateScope], *, tokens: int, now_ms: int
) -> tuple[list[str], list[int]]:
    """The minute's counters, and for each: amount, limit, when it goes, whether it gives back."""
    minute = now_ms // registers.MS_PER_MINUTE
    goes_at_ms = minute * registers.MS_PER_MINUTE + registers.MINUTE_KEPT_MS
    keys: list[str] = []
    args: list[int] = []
    for scope in rates:
        for unit, limit, amount, gives_back in (
            ("rpm", scope.rpm, 1, 0),
            ("tpm", scope.tpm, tokens, 1),
        ):
            if limit is None:
                continue
            keys.append(
                registers.minute_key(
                    tag, tenant, kind=scope.kind, scope=scope.id, unit=unit, minute=minute
                )
            )
            args += (amount, limit, goes_at_ms, gives_back)
    return keys, args


def open_part(tag: str, tenant: int, rates: Iterable[RateScope]) -> tuple[list[str], list[int]]:
    """The sets of open requests, and how many each may have."""
    limited = [scope for scope in rates if scope.concurrency is not None]
    keys = [registers.open_key(tag, tenant, kind=scope.kind, scope=scope.id) for scope in limited]
    return keys, [scope.concurrency for scope in limited if scope.concurrency is not None]


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
