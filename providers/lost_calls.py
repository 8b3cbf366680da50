"""Asks in-house workers what calls used whose owner died, so that they are charged as delivered.

The data plane that is killed cannot say what it delivered since its last checkpoint; the worker
that it was calling can. Asked shortly after the expiry; who cannot say leaves the checkpoint.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Final

import redis
from pyreqwest.client import SyncClient
from pyreqwest.exceptions import PyreqwestError

from billing import apart, basis, late_counts
from billing.models import UsageEvent
from billing.usage import CanonicalUsage
from providers import checks, credentials, offers
from providers.models import Provider, Worker
from providers.wires import calls

logger = logging.getLogger(__name__)

LOOKED_BACK: Final = timedelta(minutes=2)
CALLS_PER_RUN_MAX: Final = 200
ASKED_AT_ONCE: Final = 8


def true_up(client: redis.Redis, *, now: datetime) -> int:
    """Settle what expired lately at the counts of its workers; returns how many."""
    workers = {worker.offer_id: worker for worker in Worker.objects.all()}
    found = late_counts.expired(offers=workers, since=now - LOOKED_BACK)
    lost = list(found[:CALLS_PER_RUN_MAX])
    if not lost:
        return 0
    counts = _asked(lost, workers)

    def settle(event: UsageEvent) -> bool:
        usage = counts.get(event.pk)
        if usage is None:
            return False
        return late_counts.settle(client, event, usage, basis=basis.ENGINE, now=now)

    return sum(apart.each(lost, settle, name=lambda event: f"call {event.request_id}"))


def _asked(lost: Sequence[UsageEvent], workers: dict[int, Worker]) -> dict[int, CanonicalUsage]:
    with checks.client() as http, ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        answers = {
            event.pk: threads.submit(_ask, http, event, workers[event.offer_id or 0])
            for event in lost
        }
    counts = {pk: answer.result() for pk, answer in answers.items()}
    return {pk: usage for pk, usage in counts.items() if usage is not None}


def _ask(http: SyncClient, event: UsageEvent, worker: Worker) -> CanonicalUsage | None:
    try:
        bearer = credentials.decrypt(worker.bearer_ciphertext)
        url = calls.url(worker.base_url, calls.call_id(str(event.request_id), -event.attempt - 1))
        headers = offers.headers_for(Provider.Wire.OPENAI, bearer)
        response = http.get(url).headers(headers).build().send()
        return calls.counts_of(bytes(response.bytes())) if response.status == 200 else None
    except (PyreqwestError, credentials.CredentialUnreadable) as problem:
        logger.warning("%s: its worker cannot be asked: %s", event.request_id, problem)
        return None
