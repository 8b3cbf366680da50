"""Lets an in-house worker of the same model count what another seller did not, after the answer.

A worker of the model has its tokenizer: it counts prompt and delivered text in a moment, without
computing. Only those are asked that might have served the request: whom the caller, its key or its
policy left out is shown no text. Who is busy, slow or away leaves the estimate, and is left alone
for a while: a receipt waits for a count, but never for long.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from billing import basis
from billing.usage import CanonicalUsage
from gateway.dataplane.exchange import TEXT_KEPT_BYTES, Asked, Attempt, Exchange
from gateway.dataplane.settling import counting
from providers.chat import OfferView
from providers.errors import BadRequest, ProviderError
from providers.outbound.upstream import Upstream
from providers.wires import worker_counts

logger = logging.getLogger(__name__)

LIMIT_S: Final = 1.0
# Of one process and of one tenant in it; who comes then is charged the estimate.
AT_ONCE_MAX: Final = 8
AT_ONCE_OF_TENANT_MAX: Final = 2
ANSWER_BYTES_MAX: Final = 4 * 1024
# A longer prompt keeps a worker's processor busy for longer than a count is worth.
PROMPT_BYTES_MAX: Final = 256 * 1024
REST_S: Final = 30.0

Rest = tuple[tuple[int, str], int]  # of a worker's access and a tenant: one's prompts are its own


@dataclass(slots=True)
class Recounting:
    """`monotonic` says when a worker that did not answer a tenant is asked for it again."""

    upstream: Upstream
    monotonic: Callable[[], float]
    _asking: Counter[int] = field(default_factory=Counter)  # by tenant
    _resting: dict[Rest, float] = field(default_factory=dict)

    async def ask(self, exchange: Exchange) -> None:
        """Write on the last attempt what a worker counts, if only an estimate is known of it."""
        attempt, tenant = exchange.last, exchange.principal.tenant_id
        if not _is_wanted(exchange, attempt) or not self._has_room(tenant):
            return
        worker = self._worker(exchange)
        if worker is None:
            return
        self._asking[tenant] += 1
        try:
            async with asyncio.timeout(LIMIT_S):
                usage = await self._counted(exchange, attempt, worker)
        except BadRequest:
            return  # it cannot even be said to this worker
        except (TimeoutError, ProviderError) as problem:
            logger.warning("%s does not count: %s", worker.sku, str(problem) or "no answer in time")
            self._resting[worker.access, tenant] = self.monotonic() + REST_S
            return
        finally:
            self._asking -= Counter([tenant])  # and whom nothing is asked for is forgotten
        if usage is not None and _is_possible(usage, attempt):
            attempt.asked = Asked(usage, basis.RECOUNTED)

    def _has_room(self, tenant: int) -> bool:
        is_few = self._asking.total() < AT_ONCE_MAX
        return is_few and self._asking[tenant] < AT_ONCE_OF_TENANT_MAX

    def _worker(self, exchange: Exchange) -> OfferView | None:
        """The first of the ranking that is at hand."""
        now, tenant = self.monotonic(), exchange.principal.tenant_id
        self._resting = {rest: until for rest, until in self._resting.items() if until > now}
        for candidate in exchange.ranking.candidates:
            offer = candidate.offer
            is_ours = offer.in_house and not offer.pool and not offer.demoted
            # A request may name several models; another one has another tokenizer.
            is_alike = offer.model == exchange.last.candidate.offer.model
            if is_ours and is_alike and (offer.access, tenant) not in self._resting:
                return offer
        return None

    async def _counted(
        self, exchange: Exchange, attempt: Attempt, worker: OfferView
    ) -> CanonicalUsage | None:
        """None where this worker would refuse such a prompt."""
        text = "".join(attempt.shown.texts)
        call = worker_counts.recount(exchange.request, worker, answer=text)
        answer = await self.upstream.open(call, approved=True)
        try:
            body = await answer.whole(bytes_max=ANSWER_BYTES_MAX)
        finally:
            answer.close()
        return worker_counts.counts_of(body) if answer.status == 200 and body else None


def _is_wanted(exchange: Exchange, attempt: Attempt) -> bool:
    """Whether it is charged by an estimate, and its text is at hand, whole and of one choice."""
    if counting.is_told(attempt) or not attempt.is_billable:
        return False
    request, shown = exchange.request, attempt.shown
    is_kept = shown.size <= TEXT_KEPT_BYTES and request.text_bytes <= PROMPT_BYTES_MAX
    if request.n != 1 or not request.all_text or not is_kept:
        return False
    return basis.is_estimate(counting.counted(exchange, attempt).estimate_basis)


def _is_possible(usage: CanonicalUsage, attempt: Attempt) -> bool:
    """A worker's word is bounded like a seller's; and no token of a text is less than a byte."""
    candidate, size = attempt.candidate, attempt.shown.size
    most = min(size, candidate.output_bound)
    is_answer = usage.output_tokens <= most and bool(usage.output_tokens) == bool(size)
    return is_answer and 0 < usage.input_tokens <= candidate.input_bound
