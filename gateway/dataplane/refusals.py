"""Notes requests that were turned away, so that people can see why. No money is involved.

Bounded twice: the list in Redis is trimmed, and while Redis is away notes are dropped.
"""

import asyncio
from typing import Any

import msgspec

from gateway.dataplane.auth import Principal
from gateway.dataplane.redis_pipe import RedisPipe
from gateway.errors import GatewayError

STREAM = "refusals"
KEPT_MAX = 10_000
DETAIL_BYTES_MAX = 16_384

_encode = msgspec.json.Encoder().encode


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
    entry: dict[str, Any] = {
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
    sent = pipe.command("XADD", STREAM, "MAXLEN", "~", KEPT_MAX, "*", "r", body)
    sent.add_done_callback(_forget)


def _forget(done: "asyncio.Future[Any]") -> None:
    """Losing a note is allowed; an unretrieved exception would only fill the log."""
    if not done.cancelled():
        done.exception()
