"""The attention half of a layer: what is projected, rotated, cached and attended.

Two kinds: grouped heads (most families), and DeepSeek's latent heads, which cache one short vector
per token for all heads together. The paged attention itself is the step's `attend`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.cache.kv import KVCache
from workers.model.rotary import rotate
from workers.model.shape import LATENT_NORM_EPS, ModelConfig
from workers.weights.checkpoint import ReadWeights, read_linear
from workers.weights.linear import Linear, MakeLinear

# Writes attention of queries [tokens, heads, dim] over one layer's blocks into the last argument.
Attend = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Step:
    """What the layers of one forward share."""

    cache: KVCache
    slots: Tensor  # [tokens]
    attend: Attend
    rotation: Tensor | None  # [tokens, 1, dim / 2], complex
    attended: Tensor  # [tokens, heads * head_dim], scratch


class GroupedHeads:
    """Query heads in groups that share a key and a value head."""

    def __init__(
        self, config: ModelConfig, read: ReadWeights, prefix: str, make: MakeLinear
    ) -> None:
        self._config = config
        self.qkv = _read_qkv(config, read, prefix, make)
        out = "out_proj" if f"{prefix}.out_proj.weight" in read else "o_proj"
        self.output = read_linear(
            read,
            f"{prefix}.{out}",
            (config.hidden_size, config.heads * config.head_dim),
            make,
            biased=config.output_bias,
        )
        self.norms = _read_head_norms(config, read, prefix)

    def __call__(self, normed: Tensor, hidden: Tensor, index: int, step: Step) -> Tensor:
        heads = self._config.heads
        qkv = self.remember(normed, index, step)
        step.attend(qkv[:, :heads], step.cache.blocks[index], step.attended)
        return self.output.plus(step.attended, hidden)

    def remember(self, normed: Tensor, index: int, step: Step) -> Tensor:
        """Store keys and values; they and the queries: [tokens, heads + 2 * kv_heads, dim]."""
        config = self._config
        rotated = config.heads + config.kv_heads
        qkv = self.qkv(normed).view(-1, rotated + config.kv_heads, config.head_dim)
        if self.norms:
            self._norm_heads(qkv)
        if step.rotation is not None:
            rotate(qkv[:, :rotated], step.rotation)
        step.cache.slots[index].index_copy_(0, step.slots, qkv[:, config.heads :])
        return qkv

    def _norm_heads(self, qkv: Tensor) -> None:
        """In place; a weight is as wide as one head or as all of them."""
        heads, kv_heads = self._config.heads, self._config.kv_heads
        parts = (qkv[:, :heads], qkv[:, heads : heads + kv_heads])
        for part, weight in zip(parts, self.norms, strict=True):
            rows = part.reshape(part.shape[0], -1, weight.shape[0])
            part.copy_(F.rms_norm(rows, weight.shape, weight, self._config.norm_eps).view_as(part))


class LatentHeads:
    """Keys and values of all heads are products of one latent vector, and only that is cached.

    The products move to the other side: queries are taken into the latent's space, and the values
    out of it after attending (DeepSeek-V2, arXiv 2405.04434, section 2.1). So the cache has a
    single head, whose keys [latent, rotated part] serve as values too.
    """

    def __init__(
        self, config: ModelConfig, read: ReadWeights, prefix: str, make: MakeLinear
    ) -> None:
        latent, rope = config.latent, config.rope
        assert latent is not None
        assert rope is not None
        self._heads, self._rank, self._plain = config.heads, latent.rank, latent.plain_dim
        self._norm_eps = LATENT_NORM_EPS
        # `attend` divides by the root of the cached width, where the model wants that of a head.
        scale = latent.sharpness * math.sqrt(config.head_dim / (latent.plain_dim + rope.dim))
        query_width = config.hidden_size
        self._query_down: Linear | None = None
        name = f"{prefix}.q_proj.weight"
        if latent.query_rank is not None:
            down = read(f"{prefix}.q_a_proj.weight", (latent.query_rank, config.hidden_size))
            self._query_down = make(down)
            self._query_norm = read(f"{prefix}.q_a_layernorm.weight", (latent.query_rank,)).clone()
            name, query_width = f"{prefix}.q_b_proj.weight", latent.query_rank
        rows = config.heads * (latent.plain_dim + rope.dim)
        self._query = make(read(name, (rows, query_width)) * scale)
        self._down = make(
            read(f"{prefix}.kv_a_proj_with_mqa.weight", (config.head_dim, config.hidden_size))
        )
        self._norm = read(f"{prefix}.kv_a_layernorm.weight", (latent.rank,)).clone()
        both = latent.plain_dim + latent.value_dim
        up = read(f"{prefix}.kv_b_proj.weight", (config.heads * both, latent.rank))
        by_head = up.view(config.heads, both, latent.rank)
        self._key_up = by_head[:, : latent.plain_dim].contiguous()  # [heads, plain, rank]
        values = by_head[:, latent.plain_dim :]
        self._value_up = values.transpose(1, 2).contiguous()  # [heads, rank, value]
        self.output = make(
            read(f"{prefix}.o_proj.weight", (config.hidden_size, config.heads * latent.value_dim))
        )

    def __call__(self, normed: Tensor, hidden: Tensor, index: int, step: Step) -> Tensor:
        assert step.rotation is not None
        tokens, rank = len(normed), self._rank
        stored = self._down(normed).view(tokens, 1, -1)
        stored[..., :rank] = self._rms_norm(stored[..., :rank], self._norm)
        rotate(stored[..., rank:], step.rotation)
        step.cache.slots[index].index_copy_(0, step.slots, stored)

        wanted = normed
        if self._query_down is not None:
            wanted = self._rms_norm(self._query_down(normed), self._query_norm)
        query = self._query(wanted).view(tokens, self._heads, -1)
        plain = query[..., : self._plain].transpose(0, 1)
        absorbed = query.new_empty(tokens, self._heads, stored.shape[2])
        absorbed[..., :rank] = torch.bmm(plain, self._key_up).transpose(0, 1)
        absorbed[..., rank:] = query[..., self._plain :]
        rotate(absorbed[..., rank:], step.rotation)

        step.attend(absorbed, step.cache.blocks[index], step.attended)
        latents = step.attended.view(tokens, self._heads, -1)[..., :rank].transpose(0, 1)
        values = torch.bmm(latents, self._value_up).transpose(0, 1)  # [tokens, heads, value]
        return self.output.plus(values.reshape(tokens, -1), hidden)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._norm_eps)


def _read_qkv(config: ModelConfig, read: ReadWeights, prefix: str, make: MakeLinear) -> Linear:
    """One product for queries, keys and values, with the rows that rotate brought together."""
    weights, biases = [], []
    for name, heads in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads)):
        rows = heads * config.head_dim
        weight = read(f"{prefix}.{name}_proj.weight", (rows, config.hidden_size))
        bias = read(f"{prefix}.{name}_proj.bias", (rows,)) if config.qkv_bias else None
        rotates = config.rope is not None and name != "v"
        weights.append(_pair_rows(weight, config.head_dim) if rotates else weight)
        if bias is not None:
            biases.append(_pair_rows(bias, config.head_dim) if rotates else bias)
    return make(torch.cat(weights), torch.cat(biases) if biases else None)


def _read_head_norms(config: ModelConfig, read: ReadWeights, prefix: str) -> list[Tensor]:
    if config.head_norms == "none":
        return []
    each = config.head_norms == "each"
    heads = {"q_norm": 1 if each else config.heads, "k_norm": 1 if each else config.kv_heads}
    return [
        _pair_rows(read(f"{prefix}.{name}.weight", (count * config.head_dim,)), config.head_dim)
        for name, count in heads.items()
    ]


def _pair_rows(weight: Tensor, head_dim: int) -> Tensor:
    """Bring rows i and i + dim / 2 of each head together: they rotate as one complex number.

    Queries and keys are reordered alike, so every dot product keeps its value.
    """
    halves = weight.view(-1, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
