"""How an in-house worker is asked what a call used: by the id that it came with, or, where another
seller answered it, by the call itself and that answer."""

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.chat import ChatRequest, OfferView, UpstreamCall
from providers.wires.openai.wire import OpenAIWire, endpoint
from providers.wires.usage import SUBSET, OpenAIUsage, from_openai


class _Told(msgspec.Struct):
    usage: OpenAIUsage | None = None
    over: bool = True


_wire = OpenAIWire()
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_told = msgspec.json.Decoder(_Told).decode


def call_id(request_id: str, attempt: int) -> str:
    """By which a worker knows an attempt."""
    return f"{request_id}-{attempt}"


def url(base_url: str, call: str) -> str:
    return f"{endpoint(base_url, 'calls')}/{call}"


def recount(request: ChatRequest, worker: OfferView, *, answer: str) -> UpstreamCall:
    """The call as this worker would have got it, to be counted; BadRequest where it cannot be."""
    sent = _wire.build(request, worker, max_output_tokens=1)
    body = {**_fields(sent.body), "answer": answer}
    return UpstreamCall(
        url=endpoint(worker.base_url, "counts"),
        headers={"content-type": "application/json", **worker.headers},
        body=msgspec.json.encode(body),
    )


def counts_of(body: bytes) -> CanonicalUsage | None:
    """The counts in a worker's answer; None where it says none."""
    return _counts(body)[0]


def final_counts_of(body: bytes) -> CanonicalUsage | None:
    """Likewise; None as well while the call goes on."""
    counts, is_over = _counts(body)
    return counts if is_over else None


def _counts(body: bytes) -> tuple[CanonicalUsage | None, bool]:
    try:
        told = _told(body)
        usage = None if told.usage is None else from_openai(told.usage, SUBSET)
    except (msgspec.MsgspecError, UsageError, UnicodeDecodeError):
        return None, False
    return usage, told.over
