"""Notes requests that were turned away, so that people can see why. No money is involved.

Bounded twice: the list in Redis is trimmed, and while Redis is away notes are dropped.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from billing.money import PICO_PER_NANO, usd_json
from billing.registers import REFUSALS_STREAM
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.redis.pipe import RedisPipe
from gateway.errors import WOULD_REFUSE, GatewayError, OverBudget

KEPT_MAX = 10_000
DETAIL_BYTES_MAX = 16_384

_encode = msgspec.json.Encoder().encode


def note_shadows(
    pipe: RedisPipe, exchange: Exchange, caps: Sequence[tuple[str, str, str]], *, at_ms: int
) -> None:
    """A request that was served, and that these caps in shadow would have refused."""
    needed = usd_json(exchange.hold.nano * PICO_PER_NANO).decode()
    named = [
        {"scope": kind, "scope_id": scope_id, "window": window} for kind, scope_id, window in caps
    ]
    kind, scope_id, window = caps[0]
    error = OverBudget(
        f"Served. The watched limit per {window} of {exchange.principal.called(kind, scope_id)} "
        f"would have refused it: it may cost up to ${needed}.",
        code=WOULD_REFUSE,
        detail={"caps": named, "needed_usd": needed},
    )
    note(
        pipe,
        exchange.principal,
        error,
        request_id=exchange.request_id,
        model=exchange.request.model,
        at_ms=at_ms,
    )


def note(
    pipe: RedisPipe,
    principal: Principal,
    error: GatewayError,
    *,
    request_id: str,
    model: str,
    at_ms: int,
) -> None:
    """Append one refusal; nobody waits for it."""
    entry: dict[str, object] = {
        "request_id": request_id,
        "tenant": principal.tenant_id,
        "key": principal.key_id,
        "model": model[:200],
        "status": error.status,
        "code": error.code,
        "message": error.message[:500],
        "detail": error.detail,
        "at_ms": at_ms,
    }
    body = _encode(entry)
    if len(body) > DETAIL_BYTES_MAX:
        body = _encode({**entry, "detail": {}})
    sent = pipe.command("XADD", REFUSALS_STREAM, "MAXLEN", "~", KEPT_MAX, "*", "r", body)
    sent.add_done_callback(_forget)


def _forget(done: "asyncio.Future[Any]") -> None:
    """Losing a note is allowed; an unretrieved exception would only fill the log."""
    if not done.cancelled():
        done.exception()
