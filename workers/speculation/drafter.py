"""Gives the decoding requests of a step their drafts, as long as the policy finds worth it."""

from collections.abc import Callable

from workers.config import EngineConfig
from workers.scheduler import Scheduled
from workers.sequence import Sequence
from workers.speculation.constrained import constrained
from workers.speculation.ngram import NgramProposer
from workers.speculation.policy import Acceptance, CostCurve, draft_lengths
from workers.speculation.protocol import NO_DRAFT

Grow = Callable[[Sequence, int], int]


class Drafter:
    def __init__(self, config: EngineConfig, curve: CostCurve) -> None:
        self._config = config
        self._curve = curve
        self._priors: dict[int, float] = {}

    def assign(self, plan: list[Scheduled], *, grow: Grow) -> None:
        """Set `draft` of every sequence in the plan; blocks for it come from `grow`."""
        for item in plan:
            self._propose(item.sequence)
        candidates = [(self._rate(item.sequence), self._length(item.sequence)) for item in plan]
        lengths = draft_lengths(
            candidates,
            base_tokens=sum(item.count for item in plan),
            sampling=sum(item.reaches_end for item in plan),
            curve=self._curve,
        )
        for item, length in zip(plan, lengths, strict=True):
            if length:
                granted = grow(item.sequence, length)
                item.sequence.draft = item.sequence.proposed.tokens[:granted]

    def learn(self, sequence: Sequence, emitted: list[int]) -> None:
        """Compare the proposal with what came, whether it was sent or not."""
        if sequence.proposed.tokens and sequence.acceptance is not None:
            sequence.acceptance.learn(
                evidence=sequence.proposed.evidence,
                draft=sequence.proposed.tokens,
                emitted=emitted,
            )

    def _propose(self, sequence: Sequence) -> None:
        sequence.draft = []
        sequence.proposed = NO_DRAFT
        left = sequence.request.max_tokens - sequence.output_count - 1
        if not sequence.is_decoding or sequence.is_replay or left <= 0:
            return
        if sequence.proposer is None:
            sequence.proposer = NgramProposer(
                shortest=self._config.ngram_min, longest=self._config.ngram_max
            )
            sequence.acceptance = Acceptance(priors=self._priors)
        limit = min(left, self._config.max_draft_tokens)
        sequence.proposed = sequence.proposer.propose(sequence.tokens, limit)
        if sequence.grammar is not None:
            sequence.proposed = constrained(sequence.proposed, sequence.grammar, limit)

    @staticmethod
    def _length(sequence: Sequence) -> int:
        return len(sequence.proposed.tokens)

    @staticmethod
    def _rate(sequence: Sequence) -> float:
        if sequence.acceptance is None:
            return 0.0
        return sequence.acceptance.rate(sequence.proposed.evidence)
