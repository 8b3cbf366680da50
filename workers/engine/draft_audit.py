"""Proof in operation that drafts change no text: a share of the answers that were written with
drafts is computed again without any, and compared token by token.

A replay has the worst priority, runs only where a seat is idle, one at a time, and goes back to
its queue when a caller needs the seat. It reads no prefix cache, so what the cache held is checked
too. Draws depend on seed and position, so sampled texts must be equal as well. Where logits tie
within rounding, another batch may tip the scales: such an end is counted as a tie and not hidden.
"""

import logging
import random
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from workers.engine.redraw_verdict import Verdict
from workers.engine.sequence import FinishReason, GenerationRequest, Sequence

CASES_MAX: Final = 8
TOKENS_MAX: Final = 256
ATTEMPTS_MAX: Final = 3
# Beyond what any caller can ask for.
PRIORITY: Final = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Case:
    request: GenerationRequest
    attempts: int = 0


class Auditor:
    """Chooses what is replayed and remembers what runs. Owned by the engine's thread."""

    def __init__(self, *, share: float, chance: Callable[[], float] = random.random) -> None:
        self._share = share
        self._chance = chance
        self._cases: deque[Case] = deque()
        self._running: Case | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._cases) or self._running is not None

    @property
    def running_id(self) -> str | None:
        return self._running.request.request_id if self._running is not None else None

    def consider(self, sequence: Sequence, reason: FinishReason) -> None:
        """Queue a share of the finished answers that drafts had a part in, while there is room."""
        ended = reason in (FinishReason.STOP, FinishReason.LENGTH)
        if not (ended and sequence.drafted and sequence.request.auditable):
            return
        if len(self._cases) < CASES_MAX and self._chance() < self._share:
            self._cases.append(Case(replay_of(sequence)))

    def start(self) -> GenerationRequest | None:
        """The next replay, if none runs."""
        if self._running is not None or not self._cases:
            return None
        self._running = self._cases.popleft()
        self._running.attempts += 1
        return self._running.request

    def put_back(self) -> None:
        """The running replay was cancelled for somebody else; it may try again a few times."""
        assert self._running is not None
        if self._running.attempts < ATTEMPTS_MAX:
            self._cases.append(self._running)
        self._running = None

    def judge(self, sequence: Sequence) -> Verdict | None:
        """The verdict on the replay that just ended; None for one that failed or was cut short."""
        self._running = None
        verdict = sequence.verdict
        complete = sequence.output_count == sequence.request.max_tokens
        if verdict is Verdict.SAME and not complete:
            return None
        if verdict is Verdict.DIFFERENT:
            logger.error(
                "audit: %s differs from its answer with drafts at token %d of %d",
                sequence.request.request_id,
                sequence.output_count,
                sequence.request.max_tokens,
            )
        return verdict


def replay_of(sequence: Sequence) -> GenerationRequest:
    """The same request without drafts, cache or company, up to the tokens that were given."""
    expected = tuple(sequence.output[:TOKENS_MAX])
    name = secrets.token_hex(4)
    return replace(
        sequence.request,
        request_id=f"audit-{name}-{sequence.request.request_id}",
        salt=f"audit-{name}",
        priority=PRIORITY,
        max_tokens=len(expected),
        expected=expected,
        stop=(),
        leader_id=None,
        prompt_logprobs=None,
        auditable=False,
    )
