"""Drafts of a whole model, token by token: a small one beside the target, or its own first layers.

The small model has blocks of its own and reads what it has not read yet; a long prompt takes it
several steps, in which it drafts nothing. The first layers of the target need no blocks: they write
to the target's, at positions that are not computed yet, what the target itself would write there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.cache.kv import BlockPool, BlockTable, KVCache
from workers.model.batch import Part, build_batch
from workers.model.decoder import Model
from workers.speculation.network_confidence import best_guesses
from workers.speculation.protocol import NO_DRAFT, Ask, Draft, Evidence

READ_MAX = 128


@dataclass(slots=True)
class _Text:
    """What one request has in the draft model's cache."""

    table: BlockTable = field(default_factory=lambda: BlockTable(root=b""))
    tokens: list[int] = field(default_factory=list)

    def keep_common(self, tokens: list[int]) -> None:
        """Forget what was drafted and did not come; the last token is always computed again."""
        count = min(len(self.tokens), len(tokens) - 1)
        while count and self.tokens[count - 1] != tokens[count - 1]:
            count -= 1
        del self.tokens[count:]


class DraftModelProposer:
    """A separate small model with the target's vocabulary."""

    runs_model = True

    def __init__(self, model: Model, *, kv_blocks: int, block_size: int) -> None:
        self._model = model
        self._pool = BlockPool(kv_blocks, block_size)
        self._cache = model.new_cache(num_blocks=kv_blocks, block_size=block_size)
        self._texts: dict[str, _Text] = {}

    @property
    def usage(self) -> float:
        return self._pool.usage

    def forget(self, key: str) -> None:
        text = self._texts.pop(key, None)
        if text is not None:
            self._pool.release(text.table)

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        runs = [run for ask in asks if (run := self._prepare(ask)) is not None]
        guess(self._model, self._cache, runs, name="draft_model", depth=None)
        drafts = {run.ask.key: run.draft for run in runs}
        for run in runs:
            text = self._texts[run.ask.key]
            # The last guess was never an input, so its key and value are not there.
            text.tokens += (run.first_tokens + run.draft.tokens)[: run.computed]
        return [drafts.get(ask.key, NO_DRAFT) for ask in asks]

    def _prepare(self, ask: Ask) -> "Run | None":
        text = self._texts.setdefault(ask.key, _Text())
        text.keep_common(ask.tokens)
        known = len(text.tokens)
        if len(ask.tokens) + ask.limit > self._model.config.context_length:
            return None
        unread = ask.tokens[known : known + READ_MAX]
        reaches_end = known + len(unread) == len(ask.tokens)
        limit = ask.limit if reaches_end else 0
        if not self._pool.grow(text.table, known + len(unread) + limit):
            return None
        return Run(ask, text.table.block_ids, known, unread, limit)


class SelfDraftProposer:
    """The target's first layers and its head."""

    runs_model = True

    def __init__(self, model: Model, cache: KVCache, *, layers: int) -> None:
        self._model = model
        self._cache = cache
        self._layers = layers

    def forget(self, key: str) -> None:
        """Nothing is kept of a request."""

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        runs = [
            Run(ask, ask.block_ids, len(ask.tokens) - 1, ask.tokens[-1:], ask.limit) for ask in asks
        ]
        guess(self._model, self._cache, runs, name="self_draft", depth=self._layers)
        return [run.draft for run in runs]


@dataclass(slots=True)
class Run:
    """One request's way through the draft model: `first_tokens` at `first`, then its guesses."""

    ask: Ask
    block_ids: list[int]
    first: int
    first_tokens: list[int]
    limit: int
    computed: int = 0
    draft: Draft = field(default_factory=lambda: Draft([], []))

    def part(self) -> Part:
        """What is to be computed next."""
        inputs = self.draft.tokens[-1:] or self.first_tokens
        return Part(inputs, self.block_ids, first=self.first + self.computed, wanted=1)

    def take(self, token: int, certainty: int, name: str) -> None:
        self.computed += len(self.draft.tokens[-1:] or self.first_tokens)
        if len(self.draft.tokens) < self.limit:
            depth = len(self.draft.tokens)
            self.draft.tokens.append(token)
            self.draft.evidence.append(Evidence(name, certainty, depth))


def guess(
    model: Model, cache: KVCache, runs: Sequence[Run], *, name: str, depth: int | None
) -> None:
    """Extend the draft of every run to its limit, all of them in one batch for each token."""
    block_size, group = cache.blocks.shape[2], model.config.group
    active = list(runs)
    while active:
        layout = build_batch([run.part() for run in active], block_size=block_size, group=group)
        hidden = model.hidden_states(layout.batch, cache, depth=depth)
        logits = model.logits(hidden.index_select(0, layout.batch.logit_rows))
        tokens, certainties = best_guesses(logits)
        rows = zip(layout.order, tokens.tolist(), certainties, strict=True)
        for index, token, certainty in rows:
            active[index].take(token, certainty, name)
        active = [run for run in active if len(run.draft.tokens) < run.limit]
