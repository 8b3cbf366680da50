"""Sparse experts: a gate chooses a few of many small MLPs for each token.

Tokens are sorted by expert, so each chosen expert runs once per layer over its tokens, with its own
prepacked weights: no weight is copied. The outputs are weighed and summed before the residual is
added, so equal experts under weights that are halves or quarters give the dense layer's own bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.families import ModelConfig, Sparse
from workers.linear import MakeLinear
from workers.mlp import GatedMLP, read_gated_mlp
from workers.weights import ReadWeights

# Keeps a sum of weights from being zero; beside any other sum it vanishes.
TINY = 1e-20


class Gate:
    """Chooses `top_k` experts for each token, and what each of them counts."""

    def __init__(self, sparse: Sparse, weight: Tensor, choice_bias: Tensor | None) -> None:
        self._sparse = sparse
        self._weight = weight.clone()
        self._choice_bias = None if choice_bias is None else choice_bias.clone()

    def __call__(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Experts and their weights, both [tokens, top_k], of tokens [tokens, hidden]."""
        sparse = self._sparse
        logits = F.linear(normed, self._weight)  # [tokens, experts]
        scores = logits.softmax(-1) if sparse.score == "softmax" else logits.sigmoid()
        ranked = scores if self._choice_bias is None else scores + self._choice_bias
        if sparse.groups > 1:
            ranked = self._within_best_groups(ranked)
        chosen = ranked.topk(sparse.top_k, sorted=False).indices
        weights = scores.gather(1, chosen)
        if sparse.normalised:
            weights = weights / (weights.sum(-1, keepdim=True) + TINY)
        return chosen, weights if sparse.scale == 1.0 else weights * sparse.scale

    def _within_best_groups(self, ranked: Tensor) -> Tensor:
        """Experts outside the best groups can't be chosen: a token's experts share few machines."""
        sparse = self._sparse
        grouped = ranked.view(len(ranked), sparse.groups, -1)
        if sparse.score == "softmax":
            strength = grouped.amax(-1)
        else:
            strength = grouped.topk(min(2, grouped.shape[2])).values.sum(-1)
        kept = strength.topk(sparse.groups_kept, sorted=False).indices
        outside = torch.ones_like(strength, dtype=torch.bool).scatter_(1, kept, False)
        return grouped.masked_fill(outside[..., None], float("-inf")).view_as(ranked)


class SparseMLP:
    """The routed experts of one layer, and the shared one that every token passes."""

    def __init__(
        self, config: ModelConfig, read: ReadWeights, prefix: str, make: MakeLinear
    ) -> None:
        sparse = config.sparse
        assert sparse is not None
        gate = _gate_name(sparse, read, prefix)
        bias = f"{gate}.e_score_correction_bias"
        self._gate = Gate(
            sparse,
            read(f"{gate}.weight", (sparse.experts, config.hidden_size)),
            read(bias, (sparse.experts,)) if sparse.has_choice_bias else None,
        )
        self._experts = _read_experts(config, sparse, read, prefix, make)
        self._shared: GatedMLP | None = None
        self._shared_gate: Tensor | None = None
        if sparse.shared is not None:
            shape = (sparse.shared_width, config.hidden_size)
            self._shared = read_gated_mlp(read, f"{prefix}.{sparse.shared}", shape, make)
        if sparse.has_shared_gate:
            name = f"{prefix}.{sparse.shared}_gate.weight"
            self._shared_gate = read(name, (1, config.hidden_size)).clone()
        self._load = torch.zeros(sparse.experts, dtype=torch.int64)  # tokens by expert

    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor:
        chosen, weights = self._gate(normed)
        outputs = self._run(normed, chosen)  # [tokens, top_k, hidden]
        mixed = torch.bmm(weights[:, None], outputs)[:, 0]
        if self._shared is not None and self._shared_gate is not None:
            openness = F.linear(normed, self._shared_gate).sigmoid_()
            mixed += openness * self._shared.alone(normed)
        elif self._shared is not None:
            mixed = self._shared(normed, mixed)
        return mixed + hidden

    def take_load(self) -> list[int]:
        """Tokens by expert since the last call."""
        load: list[int] = self._load.tolist()
        self._load.zero_()
        return load

    def _run(self, normed: Tensor, chosen: Tensor) -> Tensor:
        tokens, top_k = chosen.shape
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=len(self._experts))
        self._load += counts
        shares = torch.split(normed.index_select(0, order // top_k), counts.tolist())
        outputs = [
            expert.alone(share)
            for expert, share in zip(self._experts, shares, strict=True)
            if len(share)
        ]
        scattered = normed.new_empty(tokens * top_k, normed.shape[1])
        scattered[order] = torch.cat(outputs)
        return scattered.view(tokens, top_k, -1)


def _gate_name(sparse: Sparse, read: ReadWeights, prefix: str) -> str:
    """Mixtral's gate has its published name, or the one that all families have in transformers."""
    published = f"{prefix}.{sparse.gate}"
    return published if f"{published}.weight" in read else f"{prefix}.mlp.gate"


def _read_experts(
    config: ModelConfig, sparse: Sparse, read: ReadWeights, prefix: str, make: MakeLinear
) -> list[GatedMLP]:
    """Experts one by one, as published, or stacked in two tensors, as transformers holds them."""
    hidden, width, count = config.hidden_size, sparse.width, sparse.experts
    stacked = f"{prefix}.mlp.experts"
    if f"{stacked}.gate_up_proj" not in read:
        roots = [f"{prefix}.{sparse.expert}.{index}" for index in range(count)]
        return [read_gated_mlp(read, root, (width, hidden), make, sparse.parts) for root in roots]
    gates_ups = read(f"{stacked}.gate_up_proj", (count, 2 * width, hidden))
    downs = read(f"{stacked}.down_proj", (count, hidden, width))
    return [
        GatedMLP(make(gate_up[:width]), make(gate_up[width:]), make(down))
        for gate_up, down in zip(gates_ups, downs, strict=True)
    ]
