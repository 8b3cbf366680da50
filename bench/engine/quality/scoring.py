"""Teacher-forced scores of a setting: nats for each token, and what it would have said instead."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from bench.engine.quality.slices import Item, Passage
from workers.engine.engine import Engine
from workers.model.batch import Part, build_batch
from workers.model.decoder import Model

CHUNK_TOKENS: Final = 128

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """For each position: nats lost on the next token, and the most likely token instead."""

    nats: Floats  # [positions]
    best: Ints  # [positions]


class Scorer:
    """Runs whole texts through a model in chunks, on blocks of its own."""

    def __init__(self, engine: Engine, *, tokens_max: int) -> None:
        self._model: Model = engine.model
        self._block_size = engine.config.block_size
        blocks = -(-tokens_max // self._block_size)
        self._block_ids = list(range(1, blocks + 1))
        self._cache = self._model.new_cache(num_blocks=blocks + 1, block_size=self._block_size)

    def scores(self, tokens: list[int], judged: list[int]) -> Scores:
        """Of the positions in `judged`, each of which predicts the token after it."""
        nats: list[torch.Tensor] = []
        best: list[torch.Tensor] = []
        for first in range(0, len(tokens) - 1, CHUNK_TOKENS):
            chunk = tokens[first : min(first + CHUNK_TOKENS, len(tokens) - 1)]
            logits = self._forward(chunk, first)  # [chunk, vocab]
            followers = torch.tensor(tokens[first + 1 : first + 1 + len(chunk)])
            nats.append(torch.nn.functional.cross_entropy(logits, followers, reduction="none"))
            best.append(logits.argmax(-1))
        wanted = np.asarray(judged)
        return Scores(
            nats=torch.cat(nats).double().numpy()[wanted], best=torch.cat(best).numpy()[wanted]
        )

    def passage(self, passage: Passage) -> Scores:
        return self.scores(passage.tokens, passage.judged)

    def is_right(self, item: Item) -> bool:
        """Whether the model, unguided, would have written the answer."""
        first = len(item.tokens) - item.answer_tokens
        best = self.scores(item.tokens, list(range(first - 1, len(item.tokens) - 1))).best
        return best.tolist() == item.tokens[first:]

    def _forward(self, chunk: list[int], first: int) -> torch.Tensor:
        part = Part(tokens=chunk, block_ids=self._block_ids, first=first, wanted=len(chunk))
        layout = build_batch([part], block_size=self._block_size, group=self._model.config.group)
        return self._model.forward(layout.batch, self._cache)
