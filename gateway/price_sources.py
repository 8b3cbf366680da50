"""Reads others' prices at the addresses that an operator gave, once a day, and compares.

Through the checked client: by https to public addresses, unless the operator said that the source
is its own; no redirects; a bounded answer in a bounded time. What differs by more than one per cent
is an alert; nothing of ours is changed.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q

from billing import fault_isolation
from billing.prices import second_source as price_check
from gateway.clocks.stopwatch import SystemClock
from providers.chat import UpstreamCall
from providers.errors import ProviderError
from providers.market import price_files
from providers.market.price_files import FILE_BYTES_MAX, PriceFileRefused
from providers.models import PriceSource
from providers.outbound import egress
from providers.outbound.upstream import Upstream

READ_EVERY: Final = timedelta(hours=24)
CONNECT_TIMEOUT_S: Final = 5.0
TIMEOUT_S: Final = 60.0

logger = logging.getLogger(__name__)


class NotRead(Exception):
    """The source has told us nothing; the text is for the operator."""


def check_address(url: str, *, is_private: bool) -> None:
    """EgressRefused where this could never be read, whatever the moment."""
    egress.check_reachable(url, approved=is_private)


def read_due(*, now: datetime) -> int:
    """Read those that were not tried for a day; returns how many were read."""
    due = PriceSource.objects.filter(
        Q(tried_at=None) | Q(tried_at__lte=now - READ_EVERY), is_on=True
    )
    return sum(fault_isolation.each(due.order_by("pk"), lambda source: read(source, now=now)))


def read(source: PriceSource, *, now: datetime) -> bool:
    """Read and compare now; False, and a reason in `outcome`, where that failed."""
    source.tried_at = now
    try:
        body = asyncio.run(_fetched(source))
        found = price_files.read(body, provider=source.provider)
    except (NotRead, PriceFileRefused) as problem:
        logger.warning("price source %s: %s", source, problem)
        source.outcome = f"failed: {problem}"[:300]
    else:
        done = price_check.compare(found.stated, source=label(source), now=now)
        source.read_at = now
        source.outcome = (
            f"{done.rates} rates of {done.skus} skus compared, {done.apart} more than 1 % apart, "
            f"{done.unknown} skus not in our catalogue"
        )
    source.save(update_fields=["tried_at", "read_at", "outcome"])
    return source.read_at == now


def label(source: PriceSource) -> str:
    """Under which name its disagreements are kept."""
    return f"url: {source.name}"


async def _fetched(source: PriceSource) -> bytes:
    upstream = Upstream(connect_timeout_s=CONNECT_TIMEOUT_S, clock=SystemClock())
    call = UpstreamCall(source.url, {"accept": "application/json"}, b"", method="GET")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await upstream.open(call, approved=source.is_private)
            if answer.status != 200:
                answer.close()
                raise NotRead(f"it answered {answer.status}")
            try:
                body = await answer.whole(bytes_max=FILE_BYTES_MAX)
            finally:
                answer.close()
            if body is None:
                raise NotRead(f"it answered more than {FILE_BYTES_MAX} bytes")
            return body
    except (ProviderError, TimeoutError) as problem:
        raise NotRead(str(problem) or f"no whole answer within {TIMEOUT_S:g} s") from problem
    finally:
        upstream.close()
