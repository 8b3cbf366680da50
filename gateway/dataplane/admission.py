"""From a ranking to a hold: the plan of one request, and the one Redis call that admits it.

The hold is the dearest that any candidate in the plan can cost or, where the tenant has an
overdraft, what such calls cost so far. It is placed over every scope at once or refused with the
scope's name; a refusal has changed nothing. The call is never
interrupted: it is bounded by Redis' own time limit, and an unheard answer is voided later.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from hiredis import ReplyError

from billing import rating, registers
from billing.errors import Cold, HoldNotOpen
from billing.holding import holds
from billing.holding.holds import HoldRequest, Placed, Refused, SpendScope
from billing.money import REGISTER_NANO_MAX, nano_ceil, nano_floor, usd_json
from billing.registers import shard_of
from gateway.dataplane import unserved
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Exchange, Hold
from gateway.dataplane.redis.pipe import RedisAway, RedisPipe
from gateway.dataplane.settling import charges
from gateway.dataplane.settling.charges import Charge
from gateway.dataplane.settling.settler import Settler
from gateway.dataplane.snapshots.snapshot import Snapshots
from gateway.errors import (
    GatewayError,
    InvalidApiKey,
    NeverFits,
    OverBudget,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from gateway.routing import names
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest

THOUSAND: Final = 1000


def plan(
    ranking: Ranking,
    snapshot_models: names.OffersByModel,
    principal: Principal,
    *,
    attempts_max: int,
) -> tuple[Candidate, ...]:
    """The candidates that may be tried, or why there are none."""
    if ranking.candidates:
        return ranking.candidates[:attempts_max]
    raise unserved.error_of(
        ranking,
        snapshot_models,
        policy=principal.policy,
        models_allowed=principal.models_allowed,
    )


def hold_of(candidates: tuple[Candidate, ...], request: ChatRequest, principal: Principal) -> Hold:
    """What to set aside for the dearest of these candidates, and in which caps."""
    ceiling_nano = nano_ceil(max(candidate.worst_pico for candidate in candidates))
    nano = ceiling_nano
    if principal.overdraft_nano:
        nano = nano_ceil(max(expected_hold(each, request, principal) for each in candidates))
    spend, named = _caps(candidates, request, principal)
    largest = max(candidates, key=lambda candidate: candidate.tokens_bound)
    return Hold(
        nano=nano,
        ceiling_nano=ceiling_nano,
        overdraft_nano=principal.overdraft_nano,
        input_tokens=largest.input_bound,
        output_tokens=largest.output_bound,
        spend=spend,
        named=named,
    )


def expected_hold(candidate: Candidate, request: ChatRequest, principal: Principal) -> int:
    """The p99 of what such calls used so far, at this candidate's prices; the most that it can
    cost where too few calls are known, or the past says nothing of such a request."""
    use = principal.call_use.get(candidate.offer.model)
    if use is None or request.n > 1 or not request.all_text:
        return candidate.worst_pico
    return rating.worst_case(
        candidate.prices,
        input_bound=-(-candidate.input_bound * use.input_p99 // THOUSAND),
        output_bound=min(candidate.output_bound, use.output_p99),
    )


def _caps(
    candidates: tuple[Candidate, ...], request: ChatRequest, principal: Principal
) -> tuple[tuple[SpendScope, ...], tuple[tuple[int, str, str], ...]]:
    """The caps that a request counts in, its session's last; and which of them are a model's or
    a provider's alone."""
    spend: tuple[SpendScope, ...] = principal.spend
    named: list[tuple[int, str, str]] = []
    # Most keys have neither kind, and each request passes here.
    if principal.spend_by_model or principal.spend_by_provider:
        for kind, name, cap in _named_caps(candidates, principal):
            spend = (*spend, cap)
            named.append((len(spend), kind, name))
    if request.session_id:
        spend = (*spend, _session_scope(request, principal))
    return spend, tuple(named)


def _named_caps(
    candidates: tuple[Candidate, ...], principal: Principal
) -> Iterator[tuple[str, str, SpendScope]]:
    for name in dict.fromkeys(each.offer.model for each in candidates):
        for cap in principal.spend_by_model.get(name, ()):
            yield "model", name, cap
    for name in dict.fromkeys(each.offer.provider for each in candidates):
        for cap in principal.spend_by_provider.get(name, ()):
            yield "provider", name, cap


def _session_scope(request: ChatRequest, principal: Principal) -> SpendScope:
    """The caller's own ceiling, but never above what the tenant allows a session."""
    limit_nano = REGISTER_NANO_MAX
    if request.session_max_pico is not None:
        limit_nano = nano_floor(request.session_max_pico)
    session = registers.session_of(principal.tenant_id, request.session_id)
    allowed = principal.session_cap
    if allowed is None:
        return SpendScope(registers.SESSION, session, registers.SESSION, limit_nano)
    return replace(
        allowed,
        id=session,
        limit_nano=min(limit_nano, allowed.limit_nano),
        raised_nano=min(limit_nano, allowed.raised_nano),
    )


async def place(
    exchange: Exchange, *, pipe: RedisPipe, snapshots: Snapshots, settler: Settler
) -> Placed | Refused:
    """Place the hold, or say which scope refuses it; raises where neither can be known."""
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
        )
    return outcome


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
    unknown = charges.event_of(
        exchange, exchange.last, Charge(), now_ms=exchange.started_ms, template=True
    )
    return HoldRequest(
        request_id=exchange.request_id,
        tenant=principal.tenant_id,
        key=principal.key_id,
        hold_nano=exchange.hold.nano,
        tokens=exchange.hold.tokens,
        now_ms=exchange.started_ms,
        deadline_ms=exchange.deadline_ms,
        spend=exchange.hold.spend,
        rates=principal.rates,
        unknown_event=unknown,
        ceiling_nano=exchange.hold.ceiling_nano,
        overdraft_nano=exchange.hold.overdraft_nano,
    )


def refusal(refused: Refused, principal: Principal, hold: Hold | None = None) -> GatewayError:
    """A refused hold as the error that the caller sees, with the scope and what is left."""
    scope = principal.called(refused.scope_kind, refused.scope_id)
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
        return _over_budget(refused, scope, 0 if hold is None else hold.nano, detail)
    if refused.code == "too_many_sessions":
        return RateLimited(
            f"{refused.limit_nano} sessions of this tenant are open. One is over when nobody has "
            "called in it for a day; send no session id, or that of an open one.",
            code="too_many_sessions",
            detail=detail,
            retryable=False,
        )
    return _over_rate(refused, scope, hold, detail)


def _over_rate(
    refused: Refused, scope: str, hold: Hold | None, detail: dict[str, str]
) -> GatewayError:
    """Too much for now; where it would be too much at any time, waiting is not asked for."""
    limit, left = refused.limit_nano, refused.left_nano
    wanted = hold.tokens if hold is not None and refused.window == "tpm" else 1
    numbers = {**detail, "limit": limit, "left": left, "wanted": wanted}
    if wanted > limit:
        return NeverFits(_never_fits(refused, scope, hold), detail=numbers)
    retry_after_s = max(1, -(-refused.retry_after_ms // 1000))
    words = {
        "rpm": f"{limit} requests per minute",
        "tpm": f"{limit} tokens per minute, {left} left; this request may take {wanted}",
        "concurrency": f"{limit} requests at the same time",
    }.get(refused.window, "its rate limit")
    return RateLimited(
        f"Rate limit of {scope}: {words}. Try again in {retry_after_s} s.",
        code="concurrency_exceeded" if refused.code == "concurrency" else "rate_limit_exceeded",
        retry_after_s=retry_after_s,
        detail=numbers,
    )


def _never_fits(refused: Refused, scope: str, hold: Hold | None) -> str:
    if hold is None or refused.window != "tpm":
        return f"The rate limit of {scope} admits no requests at all."
    return (
        f"This request may take {hold.tokens} tokens ({hold.input_tokens} of prompt, "
        f"{hold.output_tokens} of answer), and the rate limit of {scope} is "
        f"{refused.limit_nano} tokens per minute: it can never be admitted. "
        "Lower max_tokens, or shorten the prompt."
    )


def _over_budget(
    refused: Refused, scope: str, hold_nano: int, detail: dict[str, str]
) -> OverBudget:
    left, needed = _usd(refused.left_nano), _usd(hold_nano)
    what = "credit" if refused.window == "credit" else f"limit per {refused.window}"
    if refused.window == "session":
        what, scope = "limit", "this session"
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
