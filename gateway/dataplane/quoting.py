"""POST /v1/quote: what a request would cost at each offer, without a hold and without a call.

The body is that of a chat call, in the dialect of Anthropic where `anthropic-version` is sent,
else of OpenAI. It is ranked, cut and bounded by the same functions as a call, so that the maximum
is what a hold would be. Counted against the key's requests per minute.
"""

from typing import TypedDict

import msgspec

from billing import rating
from billing.errors import Cold
from billing.holding import holds
from billing.kinds import HoldMode
from billing.money import PICO_PER_NANO, nano_ceil, usd_json
from billing.registers import shard_of
from billing.usage import CanonicalUsage
from gateway.dataplane import admission, refused_holds
from gateway.dataplane.auth import CallUse, Principal
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.pipeline import Pipeline
from gateway.dataplane.redis.pipe import NO_ANSWER
from gateway.dataplane.surfaces.registry import Surface
from gateway.errors import Unavailable
from gateway.routing import explain
from gateway.routing.explained import RejectionRow
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest

PATH = "/v1/quote"
# Where too few calls are known: tokens guessed from bytes, and for p95 the most there can be.
NO_PAST = "bounds"
THOUSAND = 1000

_encode = msgspec.json.Encoder().encode


async def serve(pipeline: Pipeline, surface: Surface, client: Client, *, request_id: str) -> None:
    """Answer one quote, or raise what a call like this would be refused with before its hold."""
    principal = await pipeline.authenticate(client)
    request = surface.parse(await client.body(), client.headers)
    await _count(pipeline, principal)
    ranking = pipeline.rank(request, principal)
    planned = admission.plan(
        ranking,
        pipeline.snapshots.current.offers_by_model,
        principal,
        attempts_max=pipeline.limits.attempts_max,
    )
    document = _document(request, principal, ranking, planned, request_id)
    head = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
    ]
    await client.answer(200, head, _encode(document))


async def _count(pipeline: Pipeline, principal: Principal) -> None:
    epoch = pipeline.snapshots.current.epochs.get(shard_of(principal.tenant_id), "")
    call = holds.count_call(
        tenant=principal.tenant_id,
        key=principal.key_id,
        rates=principal.rates,
        now_ms=pipeline.clock.now_ms(),
        epoch=epoch,
    )
    try:
        refused = holds.read_count(await pipeline.pipe.run(call, repeatable=False))
    except (*NO_ANSWER, Cold):
        raise Unavailable(
            "The register of rates does not answer. Try again shortly.",
            code="registers_unavailable",
        ) from None
    if refused is not None:
        raise refused_holds.error_of(refused, principal)


class QuotedOffer(TypedDict):
    offer: str
    provider: str
    model: str
    planned: bool
    expected_usd: msgspec.Raw
    p95_usd: msgspec.Raw
    max_usd: msgspec.Raw
    hold_usd: msgspec.Raw
    input_tokens_max: int
    output_tokens_max: int
    cut_by: str
    limited_by: str
    basis: str
    samples: int
    price_versions: list[int]


class Quote(TypedDict):
    object: str
    id: str
    model: str
    policy: str
    hold_mode: str
    hold_usd: msgspec.Raw
    max_usd: msgspec.Raw
    offers: list[QuotedOffer]
    rejected: list[RejectionRow]


def _document(
    request: ChatRequest,
    principal: Principal,
    ranking: Ranking,
    planned: tuple[Candidate, ...],
    request_id: str,
) -> Quote:
    hold = admission.hold_of(planned, request, principal)
    return {
        "object": "quote",
        "id": request_id,
        "model": request.model,
        "policy": ranking.policy,
        "hold_mode": HoldMode.EXPECTED if principal.overdraft_nano else HoldMode.STRICT,
        "hold_usd": _usd(hold.nano * PICO_PER_NANO),
        "max_usd": _usd(hold.ceiling_nano * PICO_PER_NANO),
        "offers": [
            _offer(request, principal, ranking, each, is_planned=each in planned)
            for each in ranking.candidates
        ],
        "rejected": explain.reasons(ranking.rejections),
    }


def _offer(
    request: ChatRequest,
    principal: Principal,
    ranking: Ranking,
    candidate: Candidate,
    *,
    is_planned: bool,
) -> QuotedOffer:
    """One offer. Its maximum is what it would hold alone, rounded up as a hold is."""
    offer = candidate.offer
    use = principal.call_use.get(offer.model)
    hold = admission.hold_of((candidate,), request, principal)
    p95_pico = _p95(candidate, use)
    return {
        "offer": offer.sku,
        "provider": offer.provider,
        "model": offer.model,
        "planned": is_planned,
        "expected_usd": _usd(min(_expected(request, ranking, candidate, use), p95_pico)),
        "p95_usd": _usd(p95_pico),
        "max_usd": _usd(hold.ceiling_nano * PICO_PER_NANO),
        "hold_usd": _usd(hold.nano * PICO_PER_NANO),
        "input_tokens_max": candidate.input_bound,
        "output_tokens_max": candidate.output_bound,
        "cut_by": candidate.cut_by,
        "limited_by": candidate.limited_by,
        "basis": NO_PAST if use is None else use.whose,
        "samples": 0 if use is None else use.calls,
        "price_versions": [price.version for price in candidate.prices],
    }


def _expected(
    request: ChatRequest, ranking: Ranking, candidate: Candidate, use: CallUse | None
) -> int:
    """At the mean of such calls, uncached; else at what the ranking assumed."""
    if use is None:
        return candidate.expected_pico
    input_tokens = _share(candidate, use.input_mean)
    price = rating.choose(
        candidate.prices, service_tier=request.service_tier, input_tokens=input_tokens
    )
    output_tokens = min(candidate.output_bound, use.output_mean)
    usage = CanonicalUsage(input_tokens=input_tokens, output_tokens=output_tokens)
    return rating.rate(usage, price)


def _p95(candidate: Candidate, use: CallUse | None) -> int:
    if use is None:
        return nano_ceil(candidate.worst_pico) * PICO_PER_NANO
    return rating.worst_case(
        candidate.prices,
        input_bound=_share(candidate, use.input_p95),
        output_bound=min(candidate.output_bound, use.output_p95),
    )


def _share(candidate: Candidate, thousandths: int) -> int:
    return -(-candidate.input_bound * thousandths // THOUSAND)


def _usd(pico: int) -> msgspec.Raw:
    return msgspec.Raw(usd_json(pico))
