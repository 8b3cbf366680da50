"""The proposer that runs Medusa heads on the target's last hidden state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.model.decoder import Model
from workers.speculation.draft_heads import MedusaHead, TrainedHead
from workers.speculation.network_confidence import best_guesses
from workers.speculation.protocol import Ask, Draft, Evidence


class MedusaProposer:
    """All depths from the hidden state of the last computed token."""

    runs_model = True

    def __init__(self, trained: TrainedHead, model: Model) -> None:
        assert isinstance(trained.head, MedusaHead)
        self._head = trained.head
        self._depth = trained.shape.depth
        self._model = model
        self._tokens = trained.tokens
        self._output = model.make_linear(model.output_rows(trained.tokens))
        self._last: dict[str, Tensor] = {}

    def watch(self, key: str, first: int, hidden: Tensor) -> None:
        self._last[key] = hidden[-1].clone()

    def forget(self, key: str) -> None:
        self._last.pop(key, None)

    @torch.inference_mode()
    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        depth = min(self._depth, max(ask.limit for ask in asks))
        features = self._model.normed(torch.stack([self._last[ask.key] for ask in asks]))
        guessed = self._head(features)[:, :depth]
        indices, certainties = best_guesses(self._output(guessed.flatten(0, 1)))
        tokens = self._tokens[indices].tolist()
        drafts: list[Draft] = []
        for row, ask in enumerate(asks):
            first = row * depth
            stop = first + min(depth, ask.limit)
            evidence = [
                Evidence("medusa", certainty, index)
                for index, certainty in enumerate(certainties[first:stop])
            ]
            drafts.append(Draft(tokens[first:stop], evidence))
        return drafts
