"""What an attempt used: whose count it is, and what stands in where nobody counted. Pure.

The one place that decides `basis`. What a seller counted is taken as far as it can be: within the
bounds of what was asked of it, and not where it counts nothing beside text. Where the answer was
not delivered whole, the input is charged as counted and the output as delivered. All the rest is
the best estimate, never the bound: the bound is what was held.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from billing import basis
from billing.outcomes import OK
from billing.samples import Sample
from billing.usage import CanonicalUsage
from gateway.dataplane.exchange import Attempt, Exchange
from gateway.estimates import text_features
from providers.chat import Candidate
from providers.wires.usage import joined

CLAIM_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Part:
    """Input or output of an attempt. `counts` hold its details, where somebody counted them."""

    tokens: int
    basis: str
    counts: CanonicalUsage | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """`usage` is None where what the seller says is no count at all: then nothing is billed until
    somebody decides, `problem` says why, and `estimate` what it probably was. `claimed` is what a
    seller counted beyond the bounds of what was asked, and is not billed."""

    usage: CanonicalUsage | None
    estimate: CanonicalUsage
    input_basis: str
    output_basis: str
    problem: str = ""
    claimed: CanonicalUsage | None = None

    @property
    def basis(self) -> str:
        return basis.NONE if self.usage is None else self.estimate_basis

    @property
    def estimate_basis(self) -> str:
        return basis.weaker(self.input_basis, self.output_basis)


def counted(exchange: Exchange, attempt: Attempt) -> Counted:
    """See the module."""
    stated, claimed, problem = stated_by_seller(attempt)
    prompt = _input(exchange, attempt, stated)
    is_whole = attempt.outcome == OK or _is_shown_whole(attempt)
    answer = _output(exchange, attempt, stated, is_whole=is_whole)
    usage = _usage(prompt, answer)
    is_unreadable = is_whole and stated is None and claimed is None and bool(problem)
    return Counted(
        usage=None if is_unreadable else usage,
        estimate=usage,
        input_basis=prompt.basis,
        output_basis=answer.basis,
        problem=problem,
        claimed=claimed,
    )


def is_told(attempt: Attempt) -> bool:
    """Whether the seller counted a good answer: nobody else need be asked."""
    stated, *_ = stated_by_seller(attempt)
    if stated is None or attempt.outcome != OK:
        return False
    return bool(stated.output_tokens) or not attempt.read.size


def stated_by_seller(
    attempt: Attempt,
) -> tuple[CanonicalUsage | None, CanonicalUsage | None, str]:
    """What the seller counted, or what it claims beyond all bounds, or what is wrong with it."""
    usage = attempt.reader.usage
    if usage is None:
        return None, None, attempt.reader.usage_problem
    beyond = _beyond(usage, attempt.candidate)
    return (None, _storable(usage), beyond) if beyond else (usage, None, "")


def _storable(usage: CanonicalUsage) -> CanonicalUsage:
    """A claim may be of any length; what is written down of it has a column's."""
    counts = msgspec.structs.asdict(usage)
    return CanonicalUsage(**{name: min(count, CLAIM_MAX) for name, count in counts.items()})


def _beyond(usage: CanonicalUsage, candidate: Candidate) -> str:
    if usage.input_tokens > candidate.input_bound:
        return (
            f"claims {usage.input_tokens:,} input tokens; "
            f"the prompt can be {candidate.input_bound:,} at most"
        )
    if usage.output_tokens > candidate.output_bound:
        return (
            f"claims {usage.output_tokens:,} output tokens; "
            f"{candidate.output_bound:,} were asked for"
        )
    return ""


def _is_shown_whole(attempt: Attempt) -> bool:
    is_all = attempt.reader.finished and attempt.shown.size == attempt.read.size
    return is_all and (attempt.reader.usage is not None or bool(attempt.reader.usage_problem))


def _own(attempt: Attempt) -> str:
    return basis.ENGINE if attempt.candidate.offer.in_house else basis.PROVIDER


def _input(exchange: Exchange, attempt: Attempt, stated: CanonicalUsage | None) -> Part:
    """No prompt has no tokens: a zero is no count."""
    told = attempt.told.usage if attempt.told else None
    bound = attempt.candidate.input_bound
    for counts in (stated, told, attempt.reader.prompt_usage):
        if counts is not None and 0 < counts.input_tokens <= bound:
            is_final = counts is stated and attempt.reader.finished
            source = basis.PROVIDER if is_final else _own(attempt)
            return Part(counts.input_tokens, source, counts)
    asked = attempt.asked
    if asked is not None and 0 < asked.usage.input_tokens <= bound:
        return Part(asked.usage.input_tokens, asked.basis, asked.usage)
    offer, prompt = attempt.candidate.offer, exchange.prompt
    estimate = exchange.ratios.estimate(
        offer.model, offer.sku, exchange.principal.tenant_id, prompt.shape, size=prompt.size
    )
    if prompt.beside_tokens:
        return Part(min(estimate.tokens + prompt.beside_tokens, bound), basis.BYTES)
    return Part(min(estimate.tokens, bound), estimate.basis)


def _output(
    exchange: Exchange, attempt: Attempt, stated: CanonicalUsage | None, *, is_whole: bool
) -> Part:
    """Of a whole answer what was counted, unless nothing was beside text; else what was shown."""
    if is_whole and stated is not None and (stated.output_tokens or not attempt.read.size):
        return Part(stated.output_tokens, basis.PROVIDER, stated)
    shown, bound = attempt.shown, attempt.candidate.output_bound
    if not shown.size:
        return Part(0, _own(attempt))
    if attempt.reader.finished and stated is not None and stated.output_tokens:
        # Read to its end for nobody: what was shown of it is a share of what it counted.
        share = -(-stated.output_tokens * shown.size // max(attempt.read.size, 1))
        return Part(min(share, bound), basis.MEASURED)
    told = attempt.told
    if told is not None and told.size == shown.size and 0 < told.usage.output_tokens <= bound:
        return Part(told.usage.output_tokens, _own(attempt), told.usage)
    if attempt.asked is not None and attempt.asked.usage.output_tokens:
        return Part(min(attempt.asked.usage.output_tokens, bound), attempt.asked.basis)
    return _estimated_output(exchange, attempt)


def _estimated_output(exchange: Exchange, attempt: Attempt) -> Part:
    offer, bound, shown = attempt.candidate.offer, attempt.candidate.output_bound, attempt.shown
    shape, sampled = text_features.of_texts(shown.texts)
    estimate = exchange.ratios.estimate(
        offer.model,
        offer.sku,
        exchange.principal.tenant_id,
        text_features.scaled(shape, size=shown.size, of=sampled),
        size=shown.size,
        chunks=shown.chunks if exchange.request.stream else 0,
    )
    return Part(min(max(estimate.tokens, 1), bound), estimate.basis)


def _usage(prompt: Part, answer: Part) -> CanonicalUsage:
    if prompt.counts is not None and prompt.counts is answer.counts:
        return prompt.counts
    plain = CanonicalUsage(input_tokens=prompt.tokens, output_tokens=answer.tokens)
    return joined(prompt.counts or plain, answer.counts or plain)


def teach(exchange: Exchange) -> None:
    """Let what a good answer counted of text alone measure its offer, once in a while. Its event
    tells the other processes."""
    attempt = exchange.last
    offer, tenant = attempt.candidate.offer, exchange.principal.tenant_id
    if attempt.outcome != OK or not exchange.ratios.wants(offer.model, offer.sku, tenant):
        return
    attempt.taught = tuple(
        sample
        for sample in _samples(exchange, attempt, tenant)
        if exchange.ratios.learn(offer.model, offer.sku, sample)
    )


def _samples(exchange: Exchange, attempt: Attempt, tenant: int) -> Iterator[Sample]:
    usage, read = attempt.reader.usage, attempt.read
    if usage is None or _beyond(usage, attempt.candidate):
        return
    prompt = exchange.prompt
    if exchange.request.all_text and not prompt.beside_tokens:
        yield Sample(prompt.shape, prompt.size, usage.input_tokens, tenant)
    shape, sampled = text_features.of_texts(read.texts)
    # What was thought unseen was counted and not delivered.
    if sampled == read.size and not usage.reasoning_tokens and not usage.output_audio_tokens:
        chunks = read.chunks if exchange.request.stream else 0
        yield Sample(shape, read.size, usage.output_tokens, tenant, chunks)
