"""Asks an in-house worker what a call used whose end was not heard, within a moment.

A worker counts every call by the id that it came with. Most streams say their counts with each
chunk; a caller that left before the first, or waited for a whole answer, is counted by this.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from billing import basis
from billing.outcomes import OK
from billing.usage import CanonicalUsage
from gateway.dataplane.exchange import Asked, Attempt, Exchange
from providers.chat import UpstreamCall
from providers.errors import ProviderError
from providers.outbound.upstream import Upstream
from providers.wires import worker_counts

logger = logging.getLogger(__name__)

LIMIT_S: Final = 3.0
BODY_BYTES_MAX: Final = 64 * 1024
# A call that was given up at once may reach its worker after the question.
TRIES: Final = 3
PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Afterwards:
    upstream: Upstream

    async def ask(self, exchange: Exchange) -> None:
        """Write on the last attempt what its worker says, if its counts are not known."""
        attempt = exchange.last
        if not _is_lost(attempt):
            return
        try:
            async with asyncio.timeout(LIMIT_S):
                usage = await self._asked(exchange, attempt)
        except (TimeoutError, ProviderError) as problem:
            logger.warning(
                "%s: its worker does not say what it used: %s", exchange.request_id, problem
            )
            return
        if usage is not None:
            attempt.asked = Asked(usage, basis.ENGINE)

    async def _asked(self, exchange: Exchange, attempt: Attempt) -> CanonicalUsage | None:
        offer = attempt.candidate.offer
        url = worker_counts.url(offer.base_url, exchange.request.call_id)
        call = UpstreamCall(url=url, headers=offer.headers, body=b"", method="GET")
        for left in reversed(range(TRIES)):
            answer = await self.upstream.open(call, approved=True)
            try:
                if answer.status == 200:
                    body = b""
                    while len(body) < BODY_BYTES_MAX and (part := await answer.read()) is not None:
                        body += part
                    return worker_counts.counts_of(body)
            finally:
                answer.close()
            if left:
                await asyncio.sleep(PAUSE_S)
        return None


def _is_lost(attempt: Attempt) -> bool:
    """Whether our own worker was at it, and did not say what it had counted by the last chunk."""
    offer = attempt.candidate.offer
    is_ours = offer.in_house and not offer.pool
    if not is_ours or attempt.outcome == OK or not attempt.is_dispatched:
        return False
    return attempt.told is None or attempt.told.size != attempt.shown.size
