"""Sparse experts: a gate chooses a few of many small MLPs for each token.

Tokens are sorted by expert, so each chosen expert runs once per layer over its tokens: one after
the other with prepacked weights, or all in grouped products on a GPU. The outputs are weighed and
summed before the residual is added, so equal experts under weights that are halves or quarters give
the dense layer's own bits.
"""

import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.device import HOPPER
from workers.model.mlp import GatedMLP, read_gated_mlp
from workers.model.shape import ModelConfig, Sparse
from workers.weights.checkpoint import ReadWeights
from workers.weights.linear import MakeLinear, PlainLinear

# Keeps a sum of weights from being zero; beside any other sum it vanishes.
TINY = 1e-20


class ExpertUse(NamedTuple):
    """What sparse layers did: tokens by expert, by layer; and what experts took beside products.

    Gate, sorting, gathering, scattering and mixing are timed on a processor; 0 elsewhere.
    """

    tokens: dict[int, list[int]]
    dispatch_seconds: float


class Gate:
    """Chooses `top_k` experts for each token, and what each of them counts."""

    def __init__(self, sparse: Sparse, weight: Tensor, choice_bias: Tensor | None) -> None:
        self._sparse = sparse
        self.weight = weight.clone()
        self._choice_bias = None if choice_bias is None else choice_bias.clone()

    def __call__(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Experts and their weights, both [tokens, top_k], of tokens [tokens, hidden]."""
        sparse = self._sparse
        logits = F.linear(normed, self.weight).float()  # [tokens, experts]
        scores = logits.softmax(-1) if sparse.score == "softmax" else logits.sigmoid()
        ranked = scores if self._choice_bias is None else scores + self._choice_bias
        if sparse.groups > 1:
            ranked = self._within_best_groups(ranked)
        chosen = ranked.topk(sparse.top_k, sorted=False).indices
        weights = scores.gather(1, chosen)
        if sparse.normalised:
            weights = weights / (weights.sum(-1, keepdim=True) + TINY)
        scaled = weights if sparse.scale == 1.0 else weights * sparse.scale
        return chosen, scaled.to(normed.dtype)

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


class ListedExperts:
    """Experts of any kind of product, one after the other; the host must know who chose whom."""

    def __init__(self, experts: list[GatedMLP]) -> None:
        self._experts = experts

    def count(self, chosen: Tensor) -> Tensor:
        """How many of the choices [choices] fall on each expert: [experts]."""
        return torch.bincount(chosen, minlength=len(self._experts))

    def __call__(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Outputs [choices, hidden] of tokens that are sorted by their expert."""
        shares = torch.split(tokens, counts.tolist())
        outputs = [
            expert.alone(share)
            for expert, share in zip(self._experts, shares, strict=True)
            if len(share)
        ]
        return torch.cat(outputs)


class GroupedExperts:
    """All experts of a layer in three grouped products; the counts stay on the device."""

    def __init__(self, gates: list[Tensor], ups: list[Tensor], downs: list[Tensor]) -> None:
        # [experts, in, out], transposed without a copy: the product wants its columns together.
        self._gate, self._up, self._down = (
            torch.stack(weights).transpose(1, 2) for weights in (gates, ups, downs)
        )

    def count(self, chosen: Tensor) -> Tensor:
        counts = chosen.new_zeros(len(self._gate))
        return counts.scatter_add_(0, chosen, torch.ones_like(chosen))

    def __call__(self, tokens: Tensor, counts: Tensor) -> Tensor:
        ends = counts.cumsum(0, dtype=torch.int32)
        gated = F.silu(F.grouped_mm(tokens, self._gate, offs=ends))
        gated *= F.grouped_mm(tokens, self._up, offs=ends)
        return F.grouped_mm(gated, self._down, offs=ends)


def grouped_if_possible(experts: list[GatedMLP]) -> ListedExperts | GroupedExperts:
    """Grouped products are for bf16 on a GPU, over rows that are multiples of 16 bytes.

    Before Hopper torch does them one by one and reads the counts back for it.
    """
    products = [(expert.gate, expert.up, expert.down) for expert in experts]
    weights = [[part.weight for part in each if type(part) is PlainLinear] for each in products]
    if all(len(each) == 3 and all(_can_group(weight) for weight in each) for each in weights):
        return GroupedExperts(*(list(kind) for kind in zip(*weights, strict=True)))
    return ListedExperts(experts)


def _can_group(weight: Tensor) -> bool:
    if weight.device.type != "cuda" or weight.dtype is not torch.bfloat16:
        return False
    aligned = all(size * weight.element_size() % 16 == 0 for size in weight.shape)
    return aligned and torch.cuda.get_device_capability(weight.device)[0] >= HOPPER


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
        experts = _read_experts(config, sparse, read, prefix, make)
        self.expert_bytes = sum(expert.nbytes for expert in experts)
        self.active_expert_bytes = self.expert_bytes * sparse.top_k // sparse.experts
        self._experts = grouped_if_possible(experts)
        self._shared: GatedMLP | None = None
        self._shared_gate: Tensor | None = None
        if sparse.shared is not None:
            shape = (sparse.shared_width, config.hidden_size)
            self._shared = read_gated_mlp(read, f"{prefix}.{sparse.shared}", shape, make)
        if sparse.has_shared_gate:
            name = f"{prefix}.{sparse.shared}_gate.weight"
            self._shared_gate = read(name, (1, config.hidden_size)).clone()
        # Tokens by expert.
        self._load = self._gate.weight.new_zeros(sparse.experts, dtype=torch.int64)
        # A GPU is not done when a call returns: times taken here would be of the launches.
        self._is_timed = self._gate.weight.device.type == "cpu"
        self._dispatch_seconds = 0.0

    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor:
        started = time.perf_counter()
        chosen, weights = self._gate(normed)
        outputs, product_seconds = self._run(normed, chosen)  # [tokens, top_k, hidden]
        mixed = torch.bmm(weights[:, None], outputs)[:, 0]
        if self._is_timed:
            self._dispatch_seconds += time.perf_counter() - started - product_seconds
        if self._shared is not None and self._shared_gate is not None:
            openness = F.linear(normed, self._shared_gate).sigmoid_()
            mixed += openness * self._shared.alone(normed)
        elif self._shared is not None:
            mixed = self._shared(normed, mixed)
        return mixed + hidden

    @property
    def waits_for_counts(self) -> bool:
        return isinstance(self._experts, ListedExperts)

    def take_use(self) -> tuple[list[int], float]:
        """Tokens by expert, and the seconds beside their products, since the last call."""
        load: list[int] = self._load.tolist()
        self._load.zero_()
        seconds, self._dispatch_seconds = self._dispatch_seconds, 0.0
        return load, seconds

    def _run(self, normed: Tensor, chosen: Tensor) -> tuple[Tensor, float]:
        """Outputs [tokens, top_k, hidden], and how long the products alone took."""
        tokens, top_k = chosen.shape
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = self._experts.count(flat)
        self._load += counts
        scattered = normed.new_empty(tokens * top_k, normed.shape[1])
        gathered = normed.index_select(0, order // top_k)
        started = time.perf_counter()
        outputs = self._experts(gathered, counts)
        product_seconds = time.perf_counter() - started
        scattered[order] = outputs
        return scattered.view(tokens, top_k, -1), product_seconds


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
