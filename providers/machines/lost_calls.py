"""Asks in-house workers what calls used whose count got lost, so that they cost what was delivered.

The data plane that is killed cannot say what it delivered since its last checkpoint; the worker
that it was calling can: asked shortly after the expiry, it is settled late. Where a count did not
come in time, an estimate was charged: what the worker says of it later is kept, to be trued up.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import redis
from django.db.models import QuerySet

from billing import basis, fault_isolation
from billing.corrections import true_ups
from billing.drain import late_counts
from billing.models import UsageEvent
from billing.usage import CanonicalUsage
from providers.market import credentials, offers
from providers.models import Provider, Worker
from providers.outbound import small_requests
from providers.outbound.small_requests import Question, Reply
from providers.wires import worker_counts

logger = logging.getLogger(__name__)

LOOKED_BACK: Final = timedelta(minutes=2)
# A worker that was away for a while still knows its newest calls.
ESTIMATES_LOOKED_BACK: Final = timedelta(minutes=15)
CALLS_PER_RUN_MAX: Final = 200
TIMEOUT_S: Final = 3.0
ANSWER_BYTES_MAX: Final = 64 * 1024


def true_up(client: redis.Redis, *, now: datetime) -> int:
    """Settle what expired lately at the counts of its workers; returns how many."""
    workers = _by_offer()

    def settle(event: UsageEvent, counted: CanonicalUsage) -> bool:
        return late_counts.settle(client, event, counted, basis=basis.ENGINE, now=now)

    return _for_each(late_counts.expired(offers=workers, since=now - LOOKED_BACK), workers, settle)


def count_estimates(*, now: datetime) -> int:
    """Keep what workers say now of calls that were charged an estimate; returns of how many."""
    workers = _by_offer()
    found = true_ups.estimated(offers=workers, since=now - ESTIMATES_LOOKED_BACK)
    return _for_each(found, workers, partial(true_ups.note_count, now=now))


def _by_offer() -> dict[int, Worker]:
    return {worker.offer_id: worker for worker in Worker.objects.all()}


def _for_each(
    found: "QuerySet[UsageEvent]",
    workers: dict[int, Worker],
    act: Callable[[UsageEvent, CanonicalUsage], bool],
) -> int:
    """Act on each that its worker has counted, the first of them in one run; returns how many."""
    lost = list(found[:CALLS_PER_RUN_MAX])
    if not lost:
        return 0
    counts = _asked(lost, workers)

    def act_on(event: UsageEvent) -> bool:
        counted = counts.get(event.pk)
        return counted is not None and act(event, counted)

    return sum(fault_isolation.each(lost, act_on, name=lambda event: f"call {event.request_id}"))


def _asked(lost: Sequence[UsageEvent], workers: dict[int, Worker]) -> dict[int, CanonicalUsage]:
    questions = {event: _question(event, workers[event.offer_id or 0]) for event in lost}
    asked = {event: question for event, question in questions.items() if question is not None}
    replies = small_requests.ask(
        list(asked.values()), timeout_s=TIMEOUT_S, bytes_max=ANSWER_BYTES_MAX
    )
    counts = {event.pk: _counts(event, reply) for event, reply in zip(asked, replies, strict=True)}
    return {pk: usage for pk, usage in counts.items() if usage is not None}


def _question(event: UsageEvent, worker: Worker) -> Question | None:
    try:
        bearer = credentials.decrypt(worker.bearer_ciphertext)
    except credentials.CredentialUnreadable as problem:
        logger.warning("%s: its worker cannot be asked: %s", event.request_id, problem)
        return None
    attempt = -event.attempt - 1 if event.attempt < 0 else event.attempt
    url = worker_counts.url(worker.base_url, worker_counts.call_id(str(event.request_id), attempt))
    return Question(url, offers.headers_for(Provider.Wire.OPENAI, bearer), approved=True)


def _counts(event: UsageEvent, reply: Reply) -> CanonicalUsage | None:
    if reply.problem:
        logger.warning("%s: its worker cannot be asked: %s", event.request_id, reply.problem)
        return None
    return worker_counts.final_counts_of(reply.body) if reply.status == 200 else None
