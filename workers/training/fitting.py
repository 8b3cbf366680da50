"""Fits a draft head to a corpus: soft cross-entropy against the target's own distribution.

Index conventions, for a dialogue of tokens x and features g: `g[t]` is what the target makes of
x[0..t], so it decides x[t+1]. When x[t+1] is known and not yet computed, a head drafts from g[t]
(EAGLE also from x[t+1]); its depth i (from 0) guesses x[t+2+i], which g[t+1+i] decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.model.rotary import rotations
from workers.speculation.draft_heads import EagleHead, Head, MedusaHead, eagle_rope
from workers.training.corpus import Dialogue

HELD_OUT_EVERY = 16
BATCH = 6
LENGTH_MAX = 448
DEPTH_WEIGHT = 0.8
GRADIENT_NORM_MAX = 1.0
WARM_UP = 0.03
BANNED = -1e9


@dataclass(frozen=True, slots=True)
class Padded:
    """Some dialogues: tokens [rows, length], features [rows, length - 1, hidden]."""

    tokens: Tensor
    features: Tensor
    lengths: Tensor  # [rows]
    prompt_counts: Tensor  # [rows]

    def judged(self, depth: int) -> Tensor:
        """[rows, starts]: where a guess of that depth has an answer token to be compared with."""
        starts = torch.arange(self.tokens.shape[1] - 2 - depth)
        after_prompt = starts[None] + 1 >= self.prompt_counts[:, None]
        before_end = starts[None] + 2 + depth < self.lengths[:, None]
        return after_prompt & before_end

    def decides_answer(self) -> Tensor:
        """[rows, length - 1]: features that decide an answer's second token or a later one."""
        places = torch.arange(self.tokens.shape[1] - 1)[None]
        return (places >= self.prompt_counts[:, None]) & (places + 1 < self.lengths[:, None])


def pad(dialogues: Sequence[Dialogue]) -> Padded:
    length = min(LENGTH_MAX, max(len(dialogue.tokens) for dialogue in dialogues))
    width = dialogues[0].features.shape[1]
    tokens = torch.zeros(len(dialogues), length, dtype=torch.int64)
    features = torch.zeros(len(dialogues), length - 1, width)
    lengths = []
    for row, dialogue in enumerate(dialogues):
        count = min(length, len(dialogue.tokens))
        tokens[row, :count] = torch.tensor(dialogue.tokens[:count])
        features[row, : count - 1] = dialogue.features[: count - 1].float()
        lengths.append(count)
    prompt_counts = torch.tensor([dialogue.prompt_count for dialogue in dialogues])
    return Padded(tokens, features, torch.tensor(lengths), prompt_counts)


def split(dialogues: list[Dialogue]) -> tuple[list[Dialogue], list[Dialogue]]:
    """For training and, every sixteenth with all that was done with its answer, held out."""
    train = [d for d in dialogues if d.seed % HELD_OUT_EVERY]
    return train, [d for d in dialogues if not d.seed % HELD_OUT_EVERY]


def frequent_tokens(dialogues: Sequence[Dialogue], count: int) -> Tensor:
    """The tokens that answers use most, in order of their ids."""
    uses: Tensor = torch.bincount(
        torch.tensor([token for d in dialogues for token in d.tokens[d.prompt_count :]])
    )
    return uses.topk(min(count, int((uses > 0).sum()))).indices.sort().values


class Fitter:
    """Loss and acceptance of one head over batches of dialogues."""

    def __init__(self, head: Head, *, depth: int, embedding: Tensor, output: Tensor) -> None:
        """`embedding` [vocab, hidden] of all tokens, `output` [few, hidden] of the head's own."""
        self.head = head
        self._depth = depth
        self._embedding = embedding
        self._output = output

    def loss(self, batch: Padded) -> Tensor:
        decides = batch.decides_answer()
        place = decides.flatten().cumsum(0).view_as(decides) - 1
        with torch.no_grad():
            teacher = torch.softmax(batch.features[decides] @ self._output.T, -1)
        total = torch.zeros(())
        weights = 0.0
        for depth, guessed in enumerate(self.guesses(batch)):
            judged = batch.judged(depth)
            logits = guessed[judged] @ self._output.T  # [guesses, few]
            wanted = teacher[place[:, 1 + depth :][judged]]
            weight = DEPTH_WEIGHT**depth
            total = total + weight * F.cross_entropy(logits, wanted)
            weights += weight
        return total / weights

    @torch.no_grad()
    def hits(self, batch: Padded, tokens: Tensor, *, top: int = 1) -> Tensor:
        """[depth, starts]: whether each guess was right, where every depth can be judged.

        `tokens` are the head's own. With `top` > 1 any of the best ones counts.
        """
        everywhere = batch.judged(self._depth - 1)
        starts = everywhere.shape[1]
        rows: list[Tensor] = []
        for depth, guessed in enumerate(self.guesses(batch)):
            best = (guessed[:, :starts][everywhere] @ self._output.T).topk(top).indices
            actual = batch.tokens[:, 2 + depth : 2 + depth + starts][everywhere]
            rows.append((tokens[best] == actual[:, None]).any(-1))
        return torch.stack(rows)

    def guesses(self, batch: Padded) -> Iterator[Tensor]:
        """For each depth the guessed features [rows, starts, hidden]."""
        if isinstance(self.head, MedusaHead):
            moved = self.head(batch.features.flatten(0, 1))
            moved = moved.unflatten(0, batch.features.shape[:2])
            for depth in range(self._depth):
                yield moved[:, : batch.tokens.shape[1] - 2 - depth, depth]
        else:
            yield from self._eagle(self.head, batch)

    def _eagle(self, head: EagleHead, batch: Padded) -> Iterator[Tensor]:
        """Unrolled on its own predictions, with the true tokens: what acceptance would give it."""
        embedded = self._embedding[batch.tokens]
        turns = rotations(eagle_rope(), batch.tokens.shape[1])
        joined = head.pairs(embedded[:, 1:], batch.features)
        past = head.keys_values(joined, turns[: joined.shape[1]])
        chain: list[tuple[Tensor, Tensor]] = []
        for depth in range(self._depth):
            count = batch.tokens.shape[1] - 2 - depth
            joined, own_turns = joined[:, :count], turns[depth : depth + count]
            if depth:
                chain.append(head.keys_values(joined, own_turns))
            query = head.queries(joined, own_turns)
            guessed = head.finish(joined, _attend(query, past, chain))
            yield guessed
            joined = head.pairs(embedded[:, 2 + depth : 2 + depth + count], guessed)


def _attend(
    query: Tensor, past: tuple[Tensor, Tensor], chain: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Attention [rows, starts, heads * dim] of each start over the pairs up to it, and over its own
    chain of guesses."""
    starts, scale = query.shape[1], query.shape[-1] ** -0.5
    keys, values = (side[:, :starts].transpose(1, 2) for side in past)
    query = query.transpose(1, 2)  # [rows, heads, starts, dim]
    if not chain:
        mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        return mixed.transpose(1, 2).flatten(2)
    later = torch.ones(starts, starts, dtype=torch.bool).triu(1)
    scores = [(query @ keys.transpose(2, 3) * scale).masked_fill(later, BANNED)]
    links = [[side[:, :starts].transpose(1, 2) for side in link] for link in chain]
    scores += [(query * key).sum(-1, keepdim=True) * scale for key, _ in links]
    shares = torch.softmax(torch.cat(scores, -1), -1)
    mixed = shares[..., :starts] @ values
    for index, (_, value) in enumerate(links, start=starts):
        mixed = mixed + shares[..., index : index + 1] * value
    return mixed.transpose(1, 2).flatten(2)


def learning_rate(peak: float, done: float) -> float:
    """Warm up, then fall along a cosine to a twentieth; `done` is the share of the time spent."""
    if done < WARM_UP:
        return peak * (0.05 + 0.95 * done / WARM_UP)
    turn = torch.pi * min(1.0, (done - WARM_UP) / (1 - WARM_UP))
    return peak * (0.05 + 0.95 * 0.5 * (1 + float(torch.cos(torch.tensor(turn)))))
