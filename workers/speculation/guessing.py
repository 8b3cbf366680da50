"""Proposers that run a trained head on the target's hidden states: Medusa and EAGLE."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.model import Model
from workers.speculation.heads import (
    EAGLE_HEAD_DIM,
    EAGLE_HEADS,
    WINDOW,
    EagleHead,
    MedusaHead,
    TrainedHead,
)
from workers.speculation.protocol import Ask, Draft, Evidence

# How finely the head's own certainty is told apart; 0 is kept for "before it was asked".
CERTAINTIES = 10


def certainties_of(shares: Tensor) -> list[int]:
    """Shares [rows] in 0..1 as classes of evidence, 1 to `CERTAINTIES`."""
    classes: list[int] = (shares * CERTAINTIES).long().clamp_(max=CERTAINTIES - 1).add_(1).tolist()
    return classes


class Vocabulary:
    """The tokens that a head guesses among, and their rows of the target's output matrix."""

    def __init__(self, trained: TrainedHead, model: Model, name: str) -> None:
        self._name = name
        self._tokens = trained.tokens
        self._output = model.make_linear(model.output_rows(trained.tokens))

    def best(self, features: Tensor) -> tuple[list[int], list[int]]:
        """For features [rows, hidden] the likeliest tokens and how certain each is, 1 and up."""
        shares, indices = torch.softmax(self._output(features), -1).max(-1)
        return self._tokens[indices].tolist(), certainties_of(shares)

    def evidence(self, certainty: int, depth: int) -> Evidence:
        return Evidence(self._name, strength=certainty, depth=depth)


class MedusaProposer:
    """All depths from the hidden state of the last computed token."""

    runs_model = True

    def __init__(self, trained: TrainedHead, model: Model) -> None:
        assert isinstance(trained.head, MedusaHead)
        self._head = trained.head
        self._depth = trained.shape.depth
        self._model = model
        self._vocabulary = Vocabulary(trained, model, "medusa")
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
        tokens, certainties = self._vocabulary.best(guessed.flatten(0, 1))
        drafts: list[Draft] = []
        for row, ask in enumerate(asks):
            first = row * depth
            stop = first + min(depth, ask.limit)
            evidence = [
                self._vocabulary.evidence(certainty, index)
                for index, certainty in enumerate(certainties[first:stop])
            ]
            drafts.append(Draft(tokens[first:stop], evidence))
        return drafts


class _Window:
    """What EAGLE keeps of one request: attention state of its last pairs, and unread states."""

    def __init__(self) -> None:
        self.end = 0
        self._clear()

    def _clear(self) -> None:
        self.keys_values = torch.empty(0, 2, EAGLE_HEADS, EAGLE_HEAD_DIM)
        self._hidden: list[Tensor] = []

    def take(self, first: int, hidden: Tensor) -> None:
        if first != self.end:
            # The request was preempted, or its beginning came from the prefix cache.
            self._clear()
        self.end = first + len(hidden)
        self._hidden.append(hidden[-WINDOW:].clone())
        if len(self._hidden) > WINDOW:
            self._hidden = [torch.cat(self._hidden)[-WINDOW:]]

    def unread(self, model: Model) -> Tensor:
        """Features [pairs, hidden] of at most the last `WINDOW` tokens; they count as read."""
        hidden = torch.cat(self._hidden)[-WINDOW:]
        self._hidden = []
        return model.normed(hidden)


class EagleProposer:
    """Autoregressive over predicted features; sees the last `WINDOW` positions of a text."""

    runs_model = True

    def __init__(self, trained: TrainedHead, model: Model) -> None:
        assert isinstance(trained.head, EagleHead)
        self._head = trained.head
        self._model = model
        self._vocabulary = Vocabulary(trained, model, "eagle")
        self._windows: dict[str, _Window] = {}

    def watch(self, key: str, first: int, hidden: Tensor) -> None:
        self._windows.setdefault(key, _Window()).take(first, hidden)

    def forget(self, key: str) -> None:
        self._windows.pop(key, None)

    @torch.inference_mode()
    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        joined, past = self._read(asks)
        drafts = [Draft([], []) for _ in asks]
        chain: list[Tensor] = []
        for depth in range(max(ask.limit for ask in asks)):
            attended = past.attend(self._head, self._head.queries(joined), chain)
            features = self._head.finish(joined, attended)
            tokens, certainties = self._vocabulary.best(features)
            for draft, token, certainty in zip(drafts, tokens, certainties, strict=True):
                draft.tokens.append(token)
                draft.evidence.append(self._vocabulary.evidence(certainty, depth))
            joined = self._head.pairs(self._model.embedding_rows(torch.tensor(tokens)), features)
            chain.append(self._head.keys_values(joined))
        return [
            Draft(draft.tokens[: ask.limit], draft.evidence[: ask.limit])
            for draft, ask in zip(drafts, asks, strict=True)
        ]

    def _read(self, asks: Sequence[Ask]) -> tuple[Tensor, "_Past"]:
        """Catch up with what the target computed; the last pair of each request, and its past."""
        windows = [self._windows[ask.key] for ask in asks]
        features = [window.unread(self._model) for window in windows]
        counts = [len(rows) for rows in features]
        tokens: list[int] = []
        for ask, count in zip(asks, counts, strict=True):
            tokens += ask.tokens[len(ask.tokens) - count :]
        embedded = self._model.embedding_rows(torch.tensor(tokens))
        joined = self._head.pairs(embedded, torch.cat(features))
        new = torch.split(self._head.keys_values(joined), counts)
        for window, keys_values in zip(windows, new, strict=True):
            window.keys_values = torch.cat((window.keys_values, keys_values))[-WINDOW:]
        ends = torch.tensor(counts).cumsum(0) - 1
        return joined[ends], _Past.of(windows)


class _Past:
    """Windows side by side, padded in front."""

    def __init__(self, keys_values: Tensor, distances: Tensor) -> None:
        self._keys_values = keys_values  # [rows, keys, 2, heads, dim]
        self._distances = distances  # [rows, keys]: from the row's last pair; padding is WINDOW

    @classmethod
    def of(cls, windows: list[_Window]) -> "_Past":
        counts = [len(window.keys_values) for window in windows]
        most = max(counts)
        keys_values = torch.stack(
            [
                F.pad(window.keys_values, (0, 0, 0, 0, 0, 0, most - count, 0))
                for window, count in zip(windows, counts, strict=True)
            ]
        )
        distances = torch.arange(most - 1, -1, -1).expand(len(windows), most)
        padding = distances >= torch.tensor(counts)[:, None]
        return cls(keys_values, distances.masked_fill(padding, WINDOW))

    def attend(self, head: EagleHead, query: Tensor, chain: list[Tensor]) -> Tensor:
        """Attention [rows, heads * dim] over the windows and the guesses so far."""
        depth = len(chain)
        keys_values, distances = self._keys_values, self._distances + depth
        if chain:
            keys_values = torch.cat((keys_values, torch.stack(chain, 1)), 1)
            own = torch.arange(depth - 1, -1, -1).expand(len(query), depth)
            distances = torch.cat((distances, own), 1)
        bias = head.distance[:, distances].transpose(0, 1)  # [rows, heads, keys]
        scores = torch.einsum("rhd,rkhd->rhk", query, keys_values[:, :, 0])
        scores = scores * EAGLE_HEAD_DIM**-0.5 + bias
        padding = distances == WINDOW + depth
        shares = torch.softmax(scores.masked_fill_(padding[:, None], float("-inf")), -1)
        return torch.einsum("rhk,rkhd->rhd", shares, keys_values[:, :, 1]).flatten(1)
