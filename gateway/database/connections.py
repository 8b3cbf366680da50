"""Addresses of Postgres and Redis in the dialects that Django and Celery want."""

from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.database import time_limits

STATEMENT_TIMEOUT_MS: Final = 30_000
LOCK_TIMEOUT_MS: Final = 10_000
# A host that is gone is noticed in about ten seconds, whether we wait to send or to hear.
TCP: Final = {
    "tcp_user_timeout": 10_000,  # ms
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


def django_database(
    url: str, *, connections_max: int, answer_timeout_s: int, wait_s: float = 5
) -> dict[str, Any]:
    """Turns `postgresql://user@/name?host=/folder` or a TCP address into a `DATABASES` entry."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    host = query.pop("host", None) or parts.hostname or ""
    timeouts = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
    return {
        "ENGINE": "gateway.database",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        # After a restart of Postgres every pooled connection is dead, and each would fail once.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 5,
            "options": timeouts,
            "pool": {
                "min_size": 0,
                "max_size": connections_max,
                "timeout": wait_s,
                # After a failed try the pool waits ever longer before the next, and callers
                # cannot hurry it: for minutes after Postgres is back it would seem away.
                "reconnect_timeout": 1,
                "connection_class": time_limits.limited_to(answer_timeout_s),
            },
            **(TCP if host and not host.startswith("/") else {}),
            **query,
        },
    }


def celery_broker(redis_url: str) -> str:
    """Celery spells a unix socket `redis+socket://path?virtual_host=N`."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = dict(parse_qsl(parts.query)).get("db", "0")
    return f"redis+socket://{parts.path}?virtual_host={database}"
