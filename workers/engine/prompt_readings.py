"""What callers want to know of a prompt itself: its log probabilities, or one vector for its text.

Both need the hidden state of every position, so such a request reads nothing from the prefix cache.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from workers.model.sampler import NonFiniteLogits, TokenLogprobs, token_logprobs


class Head(Protocol):
    """The end of a model, which makes something of hidden states [rows, hidden]."""

    def normed(self, hidden: Tensor) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


class PromptReading:
    """Collects over the chunks of one prompt. `logprobs`: an entry for all but the first token."""

    def __init__(self, prompt: list[int], *, logprobs: int | None, pooled: bool) -> None:
        self._prompt = prompt
        self._top = logprobs
        self._pooled = pooled
        self._sum: Tensor | None = None  # [hidden] of double
        self.logprobs: list[TokenLogprobs] = []

    def take(self, start: int, hidden: Tensor, head: Head) -> None:
        """Hear the states [tokens, hidden] from position `start` on; 0 is a new beginning."""
        if start == 0:
            self._sum, self.logprobs = None, []
        part = hidden[: max(0, len(self._prompt) - start)]
        if not len(part):
            return
        if self._pooled:
            total = head.normed(part).sum(0, dtype=torch.float64)
            self._sum = total if self._sum is None else self._sum + total
        following = self._prompt[start + 1 : start + 1 + len(part)]
        if self._top is not None and following:
            rows = head.logits(part[: len(following)])
            self.logprobs += [
                token_logprobs(row, token, self._top)
                for row, token in zip(rows, following, strict=True)
            ]

    @property
    def embedding(self) -> list[float]:
        """The mean of all positions' states after the final norm, at length 1: [hidden]."""
        assert self._sum is not None
        length = float(self._sum.norm())
        if not math.isfinite(length) or length == 0.0:
            raise NonFiniteLogits
        vector: list[float] = (self._sum / length).float().tolist()
        return vector
