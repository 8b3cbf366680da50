"""How an in-house worker is asked what one call used: the id that it came with, and the answer."""

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.wires.openai import endpoint
from providers.wires.usage import SUBSET, OpenAIUsage, from_openai


class _Told(msgspec.Struct):
    usage: OpenAIUsage | None = None


_told = msgspec.json.Decoder(_Told).decode


def call_id(request_id: str, attempt: int) -> str:
    """By which a worker knows an attempt."""
    return f"{request_id}-{attempt}"


def url(base_url: str, call: str) -> str:
    return f"{endpoint(base_url, 'calls')}/{call}"


def counts_of(body: bytes) -> CanonicalUsage | None:
    """The counts in a worker's answer; None where it says none."""
    try:
        told = _told(body)
        return None if told.usage is None else from_openai(told.usage, SUBSET)
    except (msgspec.MsgspecError, UsageError, UnicodeDecodeError):
        return None
