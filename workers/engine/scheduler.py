"""Who computes how many tokens in the next step.

There is no prefill phase and no decode phase: each request wants to reach its last token and gets
part of one token budget, running requests first. A request that finds no block preempts the one
admitted last, which is recomputed later (mostly from the prefix cache); so does a waiting request
of better priority that finds no seat, no budget or no blocks. It moves no tensors.
"""

from collections import Counter
from dataclasses import dataclass

from workers.cache.kv import BlockPool
from workers.config import EngineConfig
from workers.engine.sequence import Sequence


@dataclass(slots=True)
class Scheduled:
    """`count` known tokens of one request, to which its draft is added."""

    sequence: Sequence
    count: int

    @property
    def total(self) -> int:
        return self.count + len(self.sequence.draft)

    @property
    def reaches_end(self) -> bool:
        """Whether the step computes the last known token, so that new ones can be sampled."""
        return self.count == self.sequence.remaining

    @property
    def prompt_part(self) -> int:
        """How many tokens of this step belong to the prompt."""
        start = self.sequence.num_computed
        return max(0, min(start + self.count, len(self.sequence.request.prompt)) - start)


@dataclass(slots=True)
class CacheStats:
    queried_tokens: int = 0
    hit_tokens: int = 0
    preemptions: int = 0


class QueueFull(RuntimeError):
    """Seats and waiting places are all taken."""


class Scheduler:
    def __init__(self, config: EngineConfig, pool: BlockPool) -> None:
        self._config = config
        self._pool = pool
        self._admissions = 0
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.stats = CacheStats()

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def is_full(self) -> bool:
        """Whether seats and waiting places are all taken."""
        return len(self.waiting) + len(self.running) >= self._config.max_requests

    @property
    def has_free_seat(self) -> bool:
        return not self.waiting and len(self.running) < self._config.max_running_requests

    def add(self, sequence: Sequence) -> None:
        if self.is_full:
            raise QueueFull
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or cancelled request out; its blocks are free at once."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self._pool.release(sequence.table)

    def schedule(self, now: float) -> list[Scheduled]:
        """The next step without drafts; every listed request has blocks for its tokens."""
        plan: list[Scheduled] = []
        preempted_before = self.stats.preemptions
        # Decoding requests come first: their cost is small and somebody is reading them.
        for sequence in sorted(self.running, key=lambda s: (not s.is_decoding, *_rank(s))):
            if sequence in self.running:
                self._schedule_running(sequence, plan)
        if self.stats.preemptions == preempted_before:
            self._admit(plan, now)
        return plan

    def grow_for_draft(self, sequence: Sequence, length: int) -> int:
        """Reserve blocks for a draft if there are free ones; never preempts. The length granted."""
        for granted in range(length, 0, -1):
            if self._pool.grow(sequence.table, len(sequence.tokens) + granted):
                return granted
        return 0

    def _budget_left(self, plan: list[Scheduled]) -> int:
        return self._config.token_budget - sum(item.count for item in plan)

    def _schedule_running(self, sequence: Sequence, plan: list[Scheduled]) -> None:
        count = min(sequence.remaining, self._budget_left(plan))
        if count == 0:
            return
        while not self._pool.grow(sequence.table, sequence.num_computed + count):
            victim = max(self.running, key=_rank)
            self._unseat(victim, plan)
            if victim is sequence:
                return
        plan.append(Scheduled(sequence, count))

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._pool.release(sequence.table)
        sequence.num_computed = 0
        sequence.preemptions += 1
        self.stats.preemptions += 1
        self.waiting.insert(0, sequence)

    def _admit(self, plan: list[Scheduled], now: float) -> None:
        while (sequence := self._next_waiting()) is not None:
            if not (self._has_room(plan) and self._place(sequence)):
                if not self._make_room(sequence, plan):
                    return
                continue
            self.waiting.remove(sequence)
            self.running.append(sequence)
            self._admissions += 1
            sequence.admission_number = self._admissions
            if sequence.admitted_at is None:
                sequence.admitted_at = now
            plan.append(Scheduled(sequence, min(sequence.remaining, self._budget_left(plan))))

    def _has_room(self, plan: list[Scheduled]) -> bool:
        """A seat and a token of the budget."""
        seats = self._config.max_running_requests - len(self.running)
        return seats > 0 and self._budget_left(plan) > 0

    def _make_room(self, sequence: Sequence, plan: list[Scheduled]) -> bool:
        """Preempt the worst running request for one of better priority, if that can help at all."""
        priority = sequence.request.priority
        worse = [other for other in self.running if other.request.priority > priority]
        held = sum(len(other.table.block_ids) for other in worse)
        missing = self._pool.blocks_for(len(sequence.tokens))
        if not worse or self._pool.free_blocks + held < missing:
            return False
        self._unseat(max(worse, key=_rank), plan)
        return True

    def _unseat(self, victim: Sequence, plan: list[Scheduled]) -> None:
        self._preempt(victim)
        plan[:] = [item for item in plan if item.sequence is not victim]

    def _next_waiting(self) -> Sequence | None:
        """Best priority, then preempted ones, then the tenant with the fewest seats, then age."""
        ready = [sequence for sequence in self.waiting if not sequence.waits_for_leader]
        if not ready:
            return None
        seats = Counter(sequence.request.salt for sequence in self.running)
        return min(
            ready,
            key=lambda s: (
                s.request.priority,
                s.preemptions == 0,
                seats[s.request.salt],
                s.arrived_at,
            ),
        )

    def _place(self, sequence: Sequence) -> bool:
        """Adopt cached blocks and reserve the rest of all known tokens, or leave it waiting."""
        hit = 0
        if sequence.reading is None:
            hit = self._pool.adopt_prefix(sequence.table, sequence.tokens)
        if not self._pool.grow(sequence.table, len(sequence.tokens)):
            self._pool.release(sequence.table)
            return False
        sequence.num_computed = hit
        self.stats.queried_tokens += len(sequence.tokens)
        self.stats.hit_tokens += hit
        if sequence.cached_tokens is None:
            sequence.cached_tokens = hit
        return True


def _rank(sequence: Sequence) -> tuple[int, int]:
    """Running order; the greatest is preempted first."""
    return (sequence.request.priority, sequence.admission_number)
