"""The proposer that runs an EAGLE head: a decoder of one layer beside the target, by its means.

At each position the head is given the token after it and what the target made of it. Keys and
values lie in a cache of its own, one layer deep, in the blocks that the target has for the request.
It reads when it is asked, at most `UNREAD_MAX` positions back, so that a request whose lookups do
better costs nothing. A prefix from the target's cache is not read at all, for its hidden states are
gone; what follows counts its positions from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.model.batch import Part, build_batch
from workers.model.decoder import Model
from workers.model.shape import ModelConfig
from workers.speculation.draft_heads import (
    EAGLE_HEAD_DIM,
    NORM_EPS,
    EagleHead,
    TrainedHead,
    eagle_input,
    eagle_rope,
)
from workers.speculation.network_confidence import best_guesses
from workers.speculation.protocol import NO_DRAFT, Ask, Draft, Evidence

NAME = "eagle"
UNREAD_MAX = 512


class _Reading:
    """One request's positions: [start, read_to) are in the head's cache, [read_to, end) to be read.

    `start` is where a block begins.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self.start = self.read_to = self.end = 0
        self._hidden: list[Tensor] = []

    def take(self, first: int, hidden: Tensor) -> None:
        if first != self.end:
            # The request was preempted, or its beginning came from the prefix cache.
            self._hidden = []
            self._begin_at(first)
        self._hidden.append(hidden.clone())
        self.end = first + len(hidden)
        if self.end - self.read_to > UNREAD_MAX:
            self._hidden = [torch.cat(self._hidden)[-UNREAD_MAX // 2 :]]
            self._begin_at(self.end - UNREAD_MAX // 2)

    def unread(self) -> Tensor:
        """Hidden states [positions, hidden] of all that is to be read; now it counts as read."""
        count = self.end - self.read_to
        hidden = torch.cat(self._hidden)
        self._hidden, self.read_to = [], self.end
        return hidden[len(hidden) - max(0, count) :]

    def _begin_at(self, position: int) -> None:
        size = self._block_size
        self.start = self.read_to = -(-position // size) * size


@dataclass(slots=True)
class _Run:
    """A draft in the making: `tokens` are to be read at [first, first + len(tokens))."""

    ask: Ask
    start: int
    first: int
    tokens: list[int]
    features: Tensor  # [tokens, hidden], those before the tokens
    draft: Draft = field(default_factory=Draft)

    def part(self, block_size: int) -> Part:
        blocks = self.ask.block_ids[self.start // block_size :]
        return Part(self.tokens, blocks, first=self.first - self.start, wanted=1)

    def take(self, token: int, certainty: int, features: Tensor) -> None:
        self.draft.evidence.append(Evidence(NAME, certainty, len(self.draft.tokens)))
        self.draft.tokens.append(token)
        self.first += len(self.tokens)
        self.tokens, self.features = [token], features


class EagleProposer:
    """Autoregressive over predicted features."""

    runs_model = True

    def __init__(
        self, trained: TrainedHead, model: Model, *, kv_blocks: int, block_size: int
    ) -> None:
        head = trained.head
        assert isinstance(head, EagleHead)
        self._target, self._tokens, self._block_size = model, trained.tokens, block_size
        shape = _decoder_shape(trained, context_length=model.config.context_length)
        weights = _HeadWeights(head.state_dict(), model.output_rows(trained.tokens))
        self._decoder = model.companion(shape, weights)
        self._join = self._decoder.make_linear(head.join.weight.detach(), head.join.bias.detach())
        self._cache = self._decoder.new_cache(num_blocks=kv_blocks, block_size=block_size)
        self._readings: dict[str, _Reading] = {}

    def watch(self, key: str, first: int, hidden: Tensor) -> None:
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = _Reading(self._block_size)
        reading.take(first, hidden)

    def forget(self, key: str) -> None:
        self._readings.pop(key, None)

    @torch.inference_mode()
    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        runs = {ask.key: run for ask in asks if (run := self._run(ask)) is not None}
        active = list(runs.values())
        while active:
            self._guess(active)
            active = [run for run in active if len(run.draft.tokens) < run.ask.limit]
        return [runs[ask.key].draft if ask.key in runs else NO_DRAFT for ask in asks]

    def _run(self, ask: Ask) -> _Run | None:
        """What of this request the head has not read; `None` where it has nothing to go on from."""
        reading = self._readings[ask.key]
        first = reading.read_to
        features = self._target.normed(reading.unread())
        if not len(features) or ask.limit < 1:
            return None
        # A request whose numbers broke must not leave NaN in the cache: a masked one still counts.
        return _Run(
            ask, reading.start, first, ask.tokens[first + 1 :], features.nan_to_num(0.0, 0.0, 0.0)
        )

    def _guess(self, runs: list[_Run]) -> None:
        """One more token for every draft."""
        decoder, size = self._decoder, self._block_size
        group = decoder.config.group
        layout = build_batch([run.part(size) for run in runs], block_size=size, group=group)
        ordered = [runs[index] for index in layout.order]
        embedded = self._target.embedding_rows(layout.batch.tokens)
        joined = self._join(eagle_input(embedded, torch.cat([run.features for run in ordered])))
        hidden = decoder.transform(joined, layout.batch, self._cache)
        last = hidden.index_select(0, layout.batch.logit_rows)
        features = decoder.normed(last)
        indices, certainties = best_guesses(decoder.logits(last))
        tokens = self._tokens[indices].tolist()
        for row, run in enumerate(ordered):
            run.take(tokens[row], certainties[row], features[row : row + 1])


def _decoder_shape(trained: TrainedHead, *, context_length: int) -> ModelConfig:
    shape = trained.shape
    return ModelConfig(
        family="eagle",
        vocab_size=len(trained.tokens),
        hidden_size=shape.hidden_size,
        layers=1,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=EAGLE_HEAD_DIM,
        context_length=context_length,
        mlp_width=shape.mlp_width,
        norm_eps=NORM_EPS,
        tied_embeddings=True,
        eos_token_ids=(),
        rope=eagle_rope(),
    )


class _HeadWeights:
    """The head's tensors under the names that a decoder reads; its vocabulary are the target's
    rows [tokens, hidden]."""

    def __init__(self, tensors: dict[str, Tensor], vocabulary: Tensor) -> None:
        self._tensors = tensors | {"embed_tokens.weight": vocabulary}

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self._tensors[_own_name(name)]
        assert tensor.shape == shape
        return tensor

    def __contains__(self, name: str) -> bool:
        return _own_name(name) in self._tensors


def _own_name(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` is `up_proj.weight` here."""
    return ".".join(name.split(".")[-2:])
