"""What each attempt cost whom, and the one settle that books it.

The tenant pays for what was delivered: in full after a good answer, input and the shown output
when the client left or the answer broke off, nothing where nothing was shown because of the
upstream. What was used is `counting`'s to say; rating is `billing.rating`, under the price versions
pinned when it was ranked. The settle is never lost: what Redis does not take goes to the spool.
"""

from dataclasses import dataclass
from typing import cast

from billing import basis, events, rating
from billing.events import AttemptDetail, AttemptEvent, Estimated
from billing.holding.holds import Settled
from billing.money import PICO_PER_NANO, REGISTER_NANO_MAX, nano_ceil
from billing.outcomes import STOPPED, UNKNOWN
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError
from gateway.dataplane.exchange import Attempt, Exchange
from gateway.dataplane.settling import counting
from gateway.dataplane.settling.counting import Counted
from gateway.routing import explain
from providers.chat import Held, Receipt
from providers.wires import finish_reasons, registry, service_tiers

NO_PRICE = "no price was pinned for the tier that served"


@dataclass(frozen=True, slots=True)
class Charge:
    """The rated result of one attempt. `price` is None where nothing could be rated: then
    `charge_nano` is held and not charged, `problem` says why, and `estimate` what is probably due.
    """

    usage: CanonicalUsage | None = None
    source: str = basis.NONE
    price: int | None = None
    tenant_pico: int = 0
    supplier_pico: int = 0
    charge_nano: int = 0
    billable: bool = False
    problem: str = ""
    claimed: CanonicalUsage | None = None
    estimate: Estimated | None = None
    parts: tuple[str, str] | None = None

    @property
    def is_held(self) -> bool:
        return self.billable and self.price is None


def charge_of(exchange: Exchange, attempt: Attempt) -> Charge:
    """What this attempt costs the tenant and us, as far as it got."""
    found = counting.counted(exchange, attempt)
    if not attempt.is_billable:
        return _unpaid(exchange, attempt, found)
    try:
        price, tenant_pico = _rate(exchange, attempt, found.usage, attempt.candidate.prices)
        if nano_ceil(tenant_pico) >= REGISTER_NANO_MAX:
            raise UsageError("the cost is beyond all bounds")
    except PriceNotFound:
        return _held(exchange, attempt, found, NO_PRICE)
    except UsageError as wrong:
        return _held(exchange, attempt, found, found.problem or str(wrong))
    return Charge(
        usage=found.usage,
        source=found.basis,
        price=price.version,
        tenant_pico=tenant_pico,
        supplier_pico=_owed_pico(exchange, attempt, found, tenant_pico),
        charge_nano=nano_ceil(tenant_pico),
        billable=True,
        problem=found.problem,
        claimed=found.claimed,
        parts=_parts(found),
    )


def _unpaid(exchange: Exchange, attempt: Attempt, found: Counted) -> Charge:
    """Nobody pays for it; its supplier may bill it all the same."""
    stated, claimed, problem = counting.stated_by_seller(attempt)
    return Charge(
        usage=stated,
        source=basis.PROVIDER if stated is not None else basis.NONE,
        supplier_pico=0 if claimed else _supplier_pico(exchange, attempt, stated or found.usage),
        problem=problem,
        claimed=claimed,
    )


def _owed_pico(exchange: Exchange, attempt: Attempt, found: Counted, tenant_pico: int) -> int:
    """What the supplier may bill: for the whole answer, where less of it was shown. A claim beyond
    what was asked is owed to nobody until somebody has looked."""
    if found.claimed is not None:
        return 0
    owed_pico = tenant_pico
    if attempt.candidate.cost_prices != attempt.candidate.prices:
        owed_pico = _supplier_pico(exchange, attempt, found.usage)
    reported = attempt.reader.usage
    if reported is not None and reported is not found.usage:
        owed_pico = max(owed_pico, _supplier_pico(exchange, attempt, reported))
    return owed_pico


def _held(exchange: Exchange, attempt: Attempt, found: Counted, problem: str) -> Charge:
    """Quarantined by the drain. Until somebody decides, the most that this attempt can cost stays
    debited; when nobody does, what it probably was is charged."""
    candidate = attempt.candidate
    return Charge(
        usage=found.usage,
        source=found.basis,
        charge_nano=min(exchange.hold.nano, nano_ceil(candidate.worst_pico)),
        billable=True,
        problem=problem,
        estimate=_estimated(exchange, attempt, found),
    )


def _estimated(exchange: Exchange, attempt: Attempt, found: Counted) -> Estimated | None:
    """At the tier that was asked for: what served may have no price."""
    usage, tier = found.estimate, exchange.request.service_tier
    try:
        price = rating.choose(
            attempt.candidate.prices, service_tier=tier, input_tokens=usage.input_tokens
        )
        tenant_pico = rating.rate(usage, price)
    except (PriceNotFound, UsageError):
        return None
    return Estimated(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        basis=found.estimate_basis,
        tenant_pico=tenant_pico,
    )


def _parts(found: Counted) -> tuple[str, str] | None:
    """Whose counts input and output are, where it is not the seller alone."""
    both = (found.input_basis, found.output_basis)
    return None if both == (basis.PROVIDER, basis.PROVIDER) else both


def _rate(
    exchange: Exchange,
    attempt: Attempt,
    usage: CanonicalUsage | None,
    pinned: tuple[Price, ...],
) -> tuple[Price, int]:
    """Under the versions that were pinned when it was ranked."""
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
    return service_tiers.served(attempt.reader.served_tier, asked=exchange.request.service_tier)


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
            problem=charge.problem[: events.WORD_LENGTH_MAX],
            claimed=charge.claimed,
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
    # Speed is of what came: no token is less than a byte, and what a seller claims beside the text
    # that it sent, hidden reasoning among it, took its time before the first of them.
    output_tokens = min(charge.usage.output_tokens if charge.usage else 0, attempt.read.size)
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
        queue_ms=queue_ms if isinstance(queue_ms, int | float) else None,
        output_tps=watch.output_tps(output_tokens) if request.stream else None,
        tpot_ms=watch.tpot_ms(output_tokens) if request.stream else None,
        upstream_id=reader.upstream_id,
        served_tier=reader.served_tier,
        output_bytes=attempt.read.size,
        estimate=charge.estimate,
        basis=charge.parts,
        tag=request.tag,
        input_bound=attempt.candidate.input_bound,
        cancel_applied=attempt.cancel_applied,
        # The event itself drops what are no counts.
        speculation=cast(dict[str, int], speculation) if isinstance(speculation, dict) else None,
        ranking=explain.kept(exchange.ranking) if attempt.number == 1 else None,
        taught=attempt.taught,
    )


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
                registry.left_out(exchange.request, each.candidate.offer),
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
        held=_held_part(charge, charged_nano),
        cost_pico=min(charge.tenant_pico, charged_nano * PICO_PER_NANO),
        session_cost_pico=None if session_nano is None else session_nano * PICO_PER_NANO,
        stopped_by=_stopped_by(attempt),
        choices_missing=attempt.reader.choices_missing,
        usage_extra=attempt.reader.usage_extra,
        explanation=explanation,
    )


def _held_part(charge: Charge, charged_nano: int) -> Held | None:
    """What is debited and not charged yet; None where the cost is known."""
    if not charge.is_held:
        return None
    return Held(
        amount_pico=min(charge.charge_nano, charged_nano) * PICO_PER_NANO,
        reason=charge.problem,
        estimate_pico=charge.estimate.tenant_pico if charge.estimate else 0,
    )


def _stopped_by(attempt: Attempt) -> str:
    """The caller's ceiling, where it ended the answer: by the limit that the upstream was given,
    or by us, where the upstream did not keep to it."""
    is_ended = attempt.outcome == STOPPED or attempt.reader.finish_reason == finish_reasons.LENGTH
    return attempt.candidate.cut_by if is_ended else ""
