"""Gives the decoding requests of a step their drafts, as long as the policy finds worth it.

Lookups cost nothing: all propose, the one that promises most is taken, and each is compared with
what comes. A proposer that runs a model is asked only where no lookup promises as much, and only
as deep as its measured time pays; now and then it is asked to see whether that has changed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from workers.device import Clock
from workers.engine.scheduler import Scheduled
from workers.engine.sequence import Sequence
from workers.speculation.constrained import constrained
from workers.speculation.policy import (
    Acceptance,
    CostCurve,
    DraftCost,
    Kind,
    StepCosts,
    draft_depth,
    draft_lengths,
)
from workers.speculation.prior_rates import starting_rates
from workers.speculation.protocol import (
    NO_DRAFT,
    Ask,
    Draft,
    Evidence,
    Proposer,
    Remembering,
    Watching,
)

# The share of its time that the engine may spend on asking a proposer that does not pay.
PROBE_SHARE = 0.005

Grow = Callable[[Sequence, int], int]


@dataclass(slots=True)
class _State:
    """What is known of one request: its acceptance, and the proposals of the step.

    `chances` are those of the proposal that was taken, `promise` is their sum.
    """

    acceptance: Acceptance
    proposals: list[Draft] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    promise: float = 0.0

    def begin_step(self) -> None:
        self.proposals, self.chances, self.promise = [], [], 0.0


class Drafter:
    def __init__(
        self,
        proposers: dict[str, Proposer],
        *,
        curve: CostCurve,
        max_length: int,
        model_depth: int,
        clock: Clock = time.thread_time,
    ) -> None:
        self._lookups = [p for p in proposers.values() if not p.runs_model]
        self._model = next(((n, p) for n, p in proposers.items() if p.runs_model), None)
        self._proposers = list(proposers.values())
        self._watching = [p for p in proposers.values() if isinstance(p, Watching)]
        self._curve = curve
        self._max_length = max_length
        self._model_depth = model_depth
        self._clock = clock
        self._cost = DraftCost()
        self._probe_credit_s = 0.0
        self._priors: dict[Kind, float] = {}
        for name in proposers:
            self._priors |= starting_rates(name, depth=max_length)
        self._states: dict[str, _State] = {}

    def assign(self, plan: list[Scheduled], *, grow: Grow) -> None:
        """Set `draft` of every sequence in the plan; blocks for it come from `grow`."""
        step = StepCosts(
            base_tokens=sum(item.count for item in plan),
            sampling=sum(item.reaches_end for item in plan),
            curve=self._curve,
        )
        drafting: list[Sequence] = []
        for item in plan:
            item.sequence.draft, item.sequence.proposed = [], NO_DRAFT
            if self._limit(item.sequence) > 0:
                drafting.append(item.sequence)
        for sequence in drafting:
            self._state(sequence).begin_step()
        for lookup in self._lookups:
            self._look_up(lookup, drafting)
        if self._model is not None and step.sampling:
            self._ask_model(*self._model, drafting, step, grow)
        if not step.sampling:
            return
        lengths = draft_lengths([self._state(item).chances for item in drafting], step)
        for sequence, length in zip(drafting, lengths, strict=True):
            if length:
                sequence.draft = sequence.proposed.tokens[: grow(sequence, length)]

    def learn(self, sequence: Sequence, emitted: list[int]) -> None:
        """Compare all proposals with what came, whether they were sent or not."""
        state = self._states.get(_key(sequence))
        if state is None:
            return
        for draft in state.proposals:
            start = draft.borrowed
            if draft.tokens[:start] == emitted[:start]:
                state.acceptance.learn(
                    evidence=draft.evidence[start:],
                    draft=draft.tokens[start:],
                    emitted=emitted[start:],
                )
        state.proposals = []

    def watch(self, sequence: Sequence, hidden: Tensor) -> None:
        """Show hidden states [tokens, hidden] that a step computed to whoever reads them."""
        for proposer in self._watching:
            proposer.watch(_key(sequence), sequence.num_computed, hidden)

    def end(self, sequence: Sequence, *, remember: bool) -> None:
        """Let a request go; one that ended well may help the later ones of its tenant."""
        request = sequence.request
        self._states.pop(_key(sequence), None)
        for proposer in self._proposers:
            proposer.forget(_key(sequence))
            if remember and isinstance(proposer, Remembering):
                proposer.remember(request.salt, sequence.tokens, len(request.prompt))

    def _limit(self, sequence: Sequence) -> int:
        if not sequence.is_decoding or sequence.is_replay:
            return 0
        return min(sequence.request.max_tokens - sequence.output_count - 1, self._max_length)

    def _state(self, sequence: Sequence) -> _State:
        state = self._states.get(_key(sequence))
        if state is None:
            state = self._states[_key(sequence)] = _State(Acceptance(self._priors))
        return state

    def _look_up(self, lookup: Proposer, drafting: list[Sequence]) -> None:
        asks = [_ask(sequence, self._limit(sequence)) for sequence in drafting]
        for sequence, draft in zip(drafting, lookup.propose(asks), strict=True):
            self._offer(sequence, draft)

    def _offer(self, sequence: Sequence, draft: Draft) -> None:
        """Keep a proposal for comparison, and take it if it promises more than what there is."""
        if sequence.grammar is not None:
            draft = constrained(draft, sequence.grammar, self._limit(sequence))
        if not draft.tokens:
            return
        state = self._state(sequence)
        state.proposals.append(draft)
        chances = state.acceptance.chances(draft.evidence)
        promise = sum(chances)
        if promise > state.promise:
            sequence.proposed, state.chances, state.promise = draft, chances, promise

    def _ask_model(
        self,
        name: str,
        proposer: Proposer,
        drafting: list[Sequence],
        step: StepCosts,
        grow: Grow,
    ) -> None:
        """Let the proposer that runs a model guess where it promises more than the lookups."""
        promises = {}
        for sequence in drafting:
            depths = range(min(self._model_depth, self._limit(sequence)))
            kinds = [Evidence(name, strength=0, depth=depth) for depth in depths]
            state = self._state(sequence)
            chances = state.acceptance.chances(kinds)
            if sequence.grammar is None and sum(chances) > state.promise:
                promises[_key(sequence)] = (sequence, chances)
        asked = [sequence for sequence, _ in promises.values()]
        depth = draft_depth([chances for _, chances in promises.values()], step, self._cost)
        if not depth:
            asked = self._probed(asked, step)
            depth = self._model_depth if asked else 0
        asks: list[Ask] = []
        for sequence in asked:
            limit = grow(sequence, min(depth, self._limit(sequence)))
            asks.append(_ask(sequence, limit))
        if not asks:
            return
        started = self._clock()
        drafts = proposer.propose(asks)
        self._cost.learn(len(asks), depth, self._clock() - started)
        for sequence, draft in zip(asked, drafts, strict=True):
            self._offer(sequence, draft)
            self._judge_by_depth(name, sequence, draft)
            self._go_on(sequence, draft)

    def _go_on(self, sequence: Sequence, draft: Draft) -> None:
        """Offer what lookups find behind the model's guesses: one may lead back into a copy."""
        tokens, limit = sequence.tokens, self._limit(sequence)
        for count in range(1, min(len(draft.tokens) + 1, limit)):
            guesses = draft.tokens[:count]
            ask = replace(_ask(sequence, limit - count), tokens=tokens + guesses, guessed=count)
            for lookup in self._lookups:
                [found] = lookup.propose([ask])
                evidence = draft.evidence[:count] + found.evidence
                if found.tokens:
                    self._offer(sequence, Draft(guesses + found.tokens, evidence, borrowed=count))

    def _judge_by_depth(self, name: str, sequence: Sequence, draft: Draft) -> None:
        """Have the draft compared a second time, by depth alone: that is known before asking."""
        if draft.tokens:
            kinds = [Evidence(name, strength=0, depth=depth) for depth in range(len(draft.tokens))]
            self._states[_key(sequence)].proposals.append(Draft(draft.tokens, kinds))

    def _probed(self, sequences: list[Sequence], step: StepCosts) -> list[Sequence]:
        """One request whose proposal is worth seeing although it will hardly pay, or none."""
        self._probe_credit_s += PROBE_SHARE * step.seconds(0)
        price = self._cost.seconds(1, self._model_depth)
        if not sequences or self._probe_credit_s < price:
            return []
        self._probe_credit_s -= price
        return sequences[:1]


def _key(sequence: Sequence) -> str:
    return sequence.request.request_id


def _ask(sequence: Sequence, limit: int) -> Ask:
    return Ask(
        key=_key(sequence),
        salt=sequence.request.salt,
        tokens=sequence.tokens,
        limit=limit,
        block_ids=sequence.table.block_ids,
    )
