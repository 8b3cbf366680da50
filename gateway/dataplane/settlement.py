"""What each attempt cost whom, and the one settle that books it.

The tenant pays for what was delivered: in full after a good answer, input and the shown output
when the client left or the answer broke off, nothing where nothing was shown because of the
upstream. Rating is `billing.rating`, under the price versions pinned at admission. The settle is
never lost: what Redis does not take goes to the spool.
"""

from dataclasses import dataclass

from billing import events, rating
from billing.events import AttemptDetail, AttemptEvent
from billing.holds import Settled
from billing.money import PICO_PER_NANO, REGISTER_NANO_MAX, nano_ceil
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError
from gateway.dataplane.exchange import (
    CLIENT_CANCELLED,
    CLIENT_STALLED,
    OK,
    STOPPED,
    UNKNOWN,
    Attempt,
    Exchange,
)
from gateway.routing import explain
from providers.chat import Receipt
from providers.wires import tiers

BYTES_PER_TOKEN = 4
LENGTH = "length"
CLIENT_ENDED = frozenset({CLIENT_CANCELLED, CLIENT_STALLED})


@dataclass(frozen=True, slots=True)
class Charge:
    """The rated result of one attempt. `price` is None where nothing could be rated."""

    usage: CanonicalUsage | None = None
    source: str = "none"
    price: int | None = None
    tenant_pico: int = 0
    supplier_pico: int = 0
    charge_nano: int = 0
    billable: bool = False


def charge_of(exchange: Exchange, attempt: Attempt) -> Charge:
    """What this attempt costs the tenant and us, as far as it got."""
    usage, source = _usage(exchange, attempt)
    reported = attempt.reader.usage
    if not _billable(attempt):
        supplier_pico = _supplier_pico(exchange, attempt, reported or usage)
        source = source if reported is not None else "none"
        return Charge(usage=reported, source=source, supplier_pico=supplier_pico)
    try:
        price, tenant_pico = _rate(exchange, attempt, usage, attempt.candidate.prices)
        if nano_ceil(tenant_pico) >= REGISTER_NANO_MAX:
            raise UsageError("the cost is beyond all bounds")
    except (PriceNotFound, UsageError):
        # Quarantined by the drain; until somebody decides, the whole hold stays charged.
        return Charge(usage=usage, source=source, charge_nano=exchange.hold.nano, billable=True)
    supplier_pico = tenant_pico
    if attempt.candidate.cost_prices != attempt.candidate.prices:
        supplier_pico = _supplier_pico(exchange, attempt, usage)
    if reported is not None and reported is not usage:
        supplier_pico = max(supplier_pico, _supplier_pico(exchange, attempt, reported))
    return Charge(
        usage=usage,
        source=source,
        price=price.version,
        tenant_pico=tenant_pico,
        supplier_pico=supplier_pico,
        charge_nano=nano_ceil(tenant_pico),
        billable=True,
    )


def _rate(
    exchange: Exchange,
    attempt: Attempt,
    usage: CanonicalUsage | None,
    pinned: tuple[Price, ...],
) -> tuple[Price, int]:
    """Under the versions pinned at admission."""
    if usage is None:
        raise UsageError("no usable counts")
    price = rating.choose(
        pinned,
        service_tier=_served_tier(exchange, attempt),
        input_tokens=usage.input_tokens,
    )
    return price, rating.rate(usage, price)


def _served_tier(exchange: Exchange, attempt: Attempt) -> int:
    """The tier that is billed: the one that served, which need not be the one asked for."""
    return tiers.served(attempt.reader.served_tier, asked=exchange.request.service_tier)


def _billable(attempt: Attempt) -> bool:
    if attempt.outcome in (OK, *CLIENT_ENDED):
        return True
    return attempt.shown.chunks > 0


def _usage(exchange: Exchange, attempt: Attempt) -> tuple[CanonicalUsage | None, str]:
    """The usage the tenant pays for, and where it comes from."""
    reported = attempt.reader.usage
    shown_all = attempt.reader.finished and attempt.shown.size == attempt.read.size
    if attempt.outcome == OK or (shown_all and reported is not None):
        return reported, "provider" if reported is not None else "none"
    reported = reported or attempt.reader.prompt_usage
    if reported is None:
        return (
            CanonicalUsage(
                input_tokens=_input_estimate(exchange, attempt),
                output_tokens=_shown_tokens(attempt),
            ),
            "estimated",
        )
    output_tokens = _shown_tokens(attempt)
    if attempt.reader.finished:
        size = max(attempt.read.size, 1)
        output_tokens = -(-reported.output_tokens * attempt.shown.size // size)
    output_tokens = min(output_tokens, attempt.candidate.output_bound)
    return (
        CanonicalUsage(
            input_tokens=reported.input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=reported.cache_read_tokens,
            cache_write_5m_tokens=reported.cache_write_5m_tokens,
            cache_write_1h_tokens=reported.cache_write_1h_tokens,
            input_audio_tokens=reported.input_audio_tokens,
            input_image_tokens=reported.input_image_tokens,
        ),
        "estimated",
    )


def _input_estimate(exchange: Exchange, attempt: Attempt) -> int:
    """A client that leaves early pays the bound: aborting is not a discount. Others an estimate."""
    bound = attempt.candidate.input_bound
    if attempt.outcome in CLIENT_ENDED:
        return bound
    return min(bound, exchange.ranking.input_expected)


def _shown_tokens(attempt: Attempt) -> int:
    """Each shown chunk held a token at least; four bytes are one in most languages."""
    shown = attempt.shown
    tokens = max(shown.chunks, -(-shown.size // BYTES_PER_TOKEN))
    return min(tokens, attempt.candidate.output_bound)


def _supplier_pico(exchange: Exchange, attempt: Attempt, usage: CanonicalUsage | None) -> int:
    """What the supplier charges us for the whole attempt, shown or not; 0 where nothing is
    known."""
    if attempt.failure is not None and not attempt.failure.charged:
        return 0
    try:
        return _rate(exchange, attempt, usage, attempt.candidate.cost_prices)[1]
    except (PriceNotFound, UsageError):
        return 0


def event_of(
    exchange: Exchange, attempt: Attempt, charge: Charge, *, now_ms: int, template: bool = False
) -> bytes:
    """The attempt as the immutable event that goes to the stream; a template has no ranking."""
    offer = attempt.candidate.offer
    principal = exchange.principal
    return events.encode(
        AttemptEvent(
            request_id=exchange.request_id,
            attempt=attempt.number,
            tenant=principal.tenant_id,
            key=principal.key_id,
            team=principal.team_id,
            session=exchange.session,
            sku=offer.sku,
            price=charge.price,
            prices=tuple(price.version for price in attempt.candidate.prices),
            service_tier=_served_tier(exchange, attempt),
            offer=offer.id,
            supplier=offer.provider,
            model=offer.model,
            outcome=attempt.outcome or UNKNOWN,
            usage=charge.usage,
            usage_source=charge.source,
            billable=charge.billable,
            tenant_cost_pico=charge.tenant_pico,
            supplier_cost_pico=charge.supplier_pico,
            occurred_ms=attempt.stopwatch.started_ms,
            settled_ms=now_ms,
            detail=AttemptDetail() if template else _detail(exchange, attempt, charge),
        )
    )


def _detail(exchange: Exchange, attempt: Attempt, charge: Charge) -> AttemptDetail:
    watch, reader, request = attempt.stopwatch, attempt.reader, exchange.request
    output_tokens = charge.usage.output_tokens if charge.usage else 0
    engine_ms = reader.usage_extra.get("engine_ms")
    queue_ms = engine_ms.get("queue") if isinstance(engine_ms, dict) else None
    speculation = reader.usage_extra.get("speculation")
    return AttemptDetail(
        surface=request.surface,
        stream=request.stream,
        policy=exchange.ranking.policy,
        status=attempt.status,
        error=attempt.failure.code if attempt.failure else "",
        finish_reason=reader.finish_reason,
        ttft_ms=watch.ttft_ms if request.stream else None,
        e2e_ms=watch.e2e_ms,
        queue_ms=queue_ms,
        output_tps=watch.output_tps(output_tokens) if request.stream else None,
        tpot_ms=watch.tpot_ms(output_tokens) if request.stream else None,
        upstream_id=reader.upstream_id,
        served_tier=reader.served_tier,
        output_bytes=attempt.read.size,
        recount=_recount(exchange, attempt, charge),
        tag=request.tag,
        input_bound=attempt.candidate.input_bound,
        cancel_applied=attempt.cancel_applied,
        speculation=speculation if isinstance(speculation, dict) else None,
        ranking=explain.explanation(exchange.ranking) if attempt.number == 1 else None,
    )


def _recount(exchange: Exchange, attempt: Attempt, charge: Charge) -> tuple[int, int] | None:
    """What a person who resolves an answer without usage can go by; it is never billed as such."""
    if charge.usage is not None or not charge.billable:
        return None
    return exchange.ranking.input_expected, _shown_tokens(attempt)


def receipt_of(
    exchange: Exchange, attempt: Attempt, charge: Charge, settled: Settled | None
) -> Receipt:
    """What the client is told. The cost is what is debited; where Redis has not taken the settle
    yet, it is what will be if nothing is in its way."""
    offer = attempt.candidate.offer
    charged_nano, session_nano = exchange.hold.ceiling_nano, exchange.session_nano
    if settled is not None:
        charged_nano, session_nano = settled.charged_nano, settled.session_nano
    elif session_nano is not None:
        session_nano += min(charge.charge_nano, charged_nano)
    explanation = None
    if exchange.request.explain:
        notes = [
            explain.AttemptNote(
                each.candidate.offer.sku,
                each.outcome,
                each.failure.message if each.failure else "",
            )
            for each in exchange.attempts
        ]
        explanation = explain.explanation(exchange.ranking, attempts=notes)
    return Receipt(
        request_id=exchange.request_id,
        model=offer.model,
        provider=offer.provider,
        sku=offer.sku,
        usage=charge.usage or CanonicalUsage(input_tokens=0, output_tokens=0),
        usage_source=charge.source,
        cost_pico=min(charge.tenant_pico, charged_nano * PICO_PER_NANO),
        session_cost_pico=None if session_nano is None else session_nano * PICO_PER_NANO,
        stopped_by=_stopped_by(attempt),
        usage_extra=attempt.reader.usage_extra,
        explanation=explanation,
    )


def _stopped_by(attempt: Attempt) -> str:
    """The caller's ceiling, where it ended the answer: by the limit that the upstream was given,
    or by us, where the upstream did not keep to it."""
    is_ended = attempt.outcome == STOPPED or attempt.reader.finish_reason == LENGTH
    return attempt.candidate.cut_by if is_ended else ""
