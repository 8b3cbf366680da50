"""From a ranking to a hold: the plan of one request, and the one Redis call that admits it.

The hold is the dearest that any candidate in the plan can cost. It is placed over every scope at
once or refused with the scope's name; a refusal has changed nothing. The call is never
interrupted: it is bounded by Redis' own time limit, and an unheard answer is voided later.
"""

from hiredis import ReplyError

from billing import holds
from billing.errors import Cold, HoldNotOpen
from billing.holds import HoldRequest, Placed, Refused
from billing.money import nano_ceil, usd_json
from billing.registers import shard_of
from gateway.dataplane import settlement
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.redis_pipe import RedisAway, RedisPipe
from gateway.dataplane.settlement import Charge
from gateway.dataplane.settler import Settler
from gateway.dataplane.snapshot import Snapshots
from gateway.errors import (
    GatewayError,
    InvalidApiKey,
    InvalidRequest,
    ModelNotFound,
    NoEligibleOffer,
    OverBudget,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from gateway.routing import explain, names, router
from gateway.routing.router import Ranking
from providers.chat import Candidate

COLD_RETRY_S = 2


def plan(
    ranking: Ranking, snapshot_models: names.OffersByModel, *, attempts_max: int
) -> tuple[Candidate, ...]:
    """The candidates that may be tried, or why there are none."""
    if ranking.candidates:
        return ranking.candidates[:attempts_max]
    if not ranking.known:
        raise ModelNotFound(ranking.model, nearest=names.nearest(ranking.model, snapshot_models))
    codes = {rejection.code for rejection in ranking.rejections}
    if codes == {"model_not_allowed"}:
        raise PermissionDenied(
            f"This API key may not use the model `{ranking.model}`.",
            param="model",
            code="model_not_allowed",
        )
    fault = router.own_fault(ranking)
    if fault is not None:
        raise InvalidRequest(
            f"No offer of `{ranking.model}` takes this request: {fault.reason}.",
            code=router.OWN_FAULTS[fault.code],
        )
    raise NoEligibleOffer(
        f"No offer of `{ranking.model}` can serve this request now.",
        reasons=explain.reasons(ranking.rejections),
    )


def hold_of(candidates: tuple[Candidate, ...]) -> tuple[int, int]:
    """The hold in nano-dollars and the token bound, over all candidates."""
    worst_pico = max(candidate.worst_pico for candidate in candidates)
    tokens = max(candidate.input_bound + candidate.output_bound for candidate in candidates)
    return nano_ceil(worst_pico), tokens


async def place(
    exchange: Exchange, *, pipe: RedisPipe, snapshots: Snapshots, settler: Settler
) -> None:
    """Place the hold, or raise what the caller is told."""
    request = _hold_request(exchange)
    try:
        outcome = await _place_once(request, pipe=pipe, snapshots=snapshots)
        if outcome is None:
            await snapshots.reload()
            outcome = await _place_once(request, pipe=pipe, snapshots=snapshots)
    except RedisAway as away:
        if away.sent:
            await settler.void(exchange)
        raise Unavailable(
            "Requests cannot be admitted: the register of holds does not answer. "
            "Try again shortly.",
            code="registers_unavailable",
        ) from away
    except HoldNotOpen as gone:
        raise Unavailable("The hold was lost on its way. Try again.") from gone
    except ReplyError as problem:
        raise Unavailable("Admission failed. Try again shortly.") from problem
    if outcome is None:
        raise Unavailable(
            "The books of this tenant are being rebuilt. Try again shortly.",
            code="registers_cold",
            retry_after_s=COLD_RETRY_S,
        )
    if isinstance(outcome, Refused):
        raise refusal(outcome, hold_nano=exchange.hold_nano)


async def _place_once(
    request: HoldRequest, *, pipe: RedisPipe, snapshots: Snapshots
) -> Placed | Refused | None:
    """None where the shard is cold: its epoch is not the one of our snapshot."""
    epoch = snapshots.current.epochs.get(shard_of(request.tenant))
    if epoch is None:
        return None
    reply = await pipe.run(holds.place_call(request, epoch=epoch), repeatable=True)
    try:
        return holds.read_place(reply)
    except Cold:
        return None


def _hold_request(exchange: Exchange) -> HoldRequest:
    principal = exchange.principal
    unknown = settlement.event_of(
        exchange, exchange.last, Charge(), now_ms=exchange.started_ms, template=True
    )
    return HoldRequest(
        request_id=exchange.request_id,
        tenant=principal.tenant_id,
        key=principal.key_id,
        hold_nano=exchange.hold_nano,
        tokens=exchange.tokens,
        now_ms=exchange.started_ms,
        deadline_ms=exchange.deadline_ms,
        spend=principal.spend,
        rates=principal.rates,
        unknown_event=unknown,
    )


def refusal(refused: Refused, *, hold_nano: int) -> GatewayError:
    """A refused hold as the error that the caller sees, with the scope and what is left."""
    scope = f"{refused.scope_kind} {refused.scope_id}".strip()
    detail = {
        "scope": refused.scope_kind,
        "scope_id": refused.scope_id,
        "window": refused.window,
    }
    if refused.code == "key_revoked":
        return InvalidApiKey("This API key was revoked.", code="revoked_api_key")
    if refused.code == "tenant_suspended":
        return PermissionDenied("This tenant is suspended.", code="tenant_suspended")
    if refused.code == "over_budget":
        return _over_budget(refused, scope, hold_nano, detail)
    retry_after_s = max(1, -(-refused.retry_after_ms // 1000))
    limit, left = refused.limit_nano, refused.left_nano
    words = {
        "rpm": f"{limit} requests per minute",
        "tpm": f"{limit} tokens per minute, {left} left",
        "concurrency": f"{limit} requests at the same time",
    }.get(refused.window, "its rate limit")
    return RateLimited(
        f"Rate limit of {scope}: {words}. Try again in {retry_after_s} s.",
        code="concurrency_exceeded" if refused.code == "concurrency" else "rate_limit_exceeded",
        retry_after_s=retry_after_s,
        detail={**detail, "limit": limit, "left": left},
    )


def _over_budget(
    refused: Refused, scope: str, hold_nano: int, detail: dict[str, str]
) -> OverBudget:
    left, needed = _usd(refused.left_nano), _usd(hold_nano)
    what = "credit" if refused.window == "credit" else f"limit per {refused.window}"
    return OverBudget(
        f"The {what} of {scope} has ${left} left; this request may cost up to ${needed}. "
        "Lower max_tokens, or ask for more.",
        detail={
            **detail,
            "limit_usd": _usd(refused.limit_nano),
            "left_usd": left,
            "needed_usd": needed,
        },
    )


def _usd(nano: int) -> str:
    return usd_json(nano * 1000).decode()
