"""Every limit of the data plane in one frozen record, so that the hot path reads no settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in the unit of their name; the defaults are those of `gateway.settings`."""

    body_bytes_max: int = 32 * 1024 * 1024
    answer_bytes_max: int = 64 * 1024 * 1024  # of one answer that is not streamed
    stream_bytes_max: int = 256 * 1024  # held back per stream before the first token
    held_bytes_max: int = 512 * 1024 * 1024  # of bodies and whole answers, all requests together
    body_timeout_s: float = 60.0
    rest_timeout_s: float = 3.0  # for the rest of a body that was refused
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 60.0
    first_token_timeout_s: float = 120.0
    token_gap_timeout_s: float = 30.0
    error_body_timeout_s: float = 5.0  # for the words of an upstream's refusal
    deadline_s: float = 600.0
    write_stall_s: float = 30.0
    shutdown_s: float = 20.0
    redis_timeout_s: float = 2.0
    connections_max: int = 4_096
    clock_skew_ms_max: int = 500
    attempts_max: int = 2
    cors_origins: frozenset[str] = frozenset()  # pages of these may call from browsers
    spool_dir: Path = Path(".tokenhouse/spool")

    @classmethod
    def from_settings(cls, settings: Any) -> "Limits":
        return cls(
            body_bytes_max=settings.DATAPLANE_BODY_BYTES_MAX,
            held_bytes_max=settings.DATAPLANE_HELD_BYTES_MAX,
            stream_bytes_max=settings.DATAPLANE_STREAM_BYTES_MAX,
            connect_timeout_s=settings.DATAPLANE_CONNECT_TIMEOUT_MS / 1000,
            first_byte_timeout_s=settings.DATAPLANE_FIRST_BYTE_TIMEOUT_MS / 1000,
            first_token_timeout_s=settings.DATAPLANE_FIRST_TOKEN_TIMEOUT_MS / 1000,
            token_gap_timeout_s=settings.DATAPLANE_TOKEN_GAP_TIMEOUT_MS / 1000,
            deadline_s=settings.DATAPLANE_DEADLINE_MS / 1000,
            write_stall_s=settings.DATAPLANE_WRITE_STALL_MS / 1000,
            shutdown_s=settings.DATAPLANE_DRAIN_MS / 1000,
            connections_max=settings.DATAPLANE_CONNECTIONS_MAX,
            clock_skew_ms_max=settings.CLOCK_SKEW_MS_MAX,
            cors_origins=frozenset(settings.DATAPLANE_CORS_ORIGINS),
            spool_dir=settings.DATAPLANE_SPOOL_DIR,
        )
