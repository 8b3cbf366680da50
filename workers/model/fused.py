"""The decoder in one call into the kernels per step, in int8 or fp32.

It is `Model`, loaded with their products, whose layers are then described to C. Only plain decoders
fit (RMS norms, grouped heads, gated MLPs: Llama, Mistral, Qwen2); the others run layer by layer
with the same products. Its cache holds a block's keys transposed, which no one else reads.
"""

from array import array
from itertools import chain, starmap

import torch
from torch import Tensor

from workers.cache.kv import KVCache
from workers.kernels import library
from workers.kernels.library import Kernels
from workers.model.attention_heads import GroupedHeads
from workers.model.decoder import Batch, Layer, Model, RMSNorm
from workers.model.mlp import GatedMLP
from workers.model.sampler import Peak, Softmax
from workers.model.shape import ModelConfig
from workers.weights.checkpoint import ReadWeights
from workers.weights.linear import KernelLinear, KernelMaker

# The kernels' vectors have this many lanes: a block's positions, and a divisor of the widths.
LANES = 16


def unfit(config: ModelConfig, *, block_size: int) -> str | None:
    """Why the whole decoder cannot run in the kernels, None if it can."""
    if config.rope is None or config.latent is not None or config.sparse is not None:
        return f"{config.family} is no plain decoder"
    if config.head_norms != "none":
        return f"{config.family} norms its heads"
    if config.hidden_size % LANES or config.head_dim % LANES:
        return f"hidden and head sizes must be multiples of {LANES}"
    if block_size != LANES:
        return f"blocks must have {LANES} tokens"
    return None


class FusedModel(Model):
    def __init__(
        self, config: ModelConfig, read: ReadWeights, *, kernels: Kernels, precision: str
    ) -> None:
        super().__init__(config, read, make=KernelMaker(kernels, precision=precision))
        self._kernels = kernels
        assert self._rotations is not None
        described = [_describe(layer) for layer in self._layers]
        self._described = (library.Layer * len(described))(*described)
        self._decoder = library.Decoder(
            config.hidden_size,
            config.mlp_width,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.norm_eps,
            self._rotations.data_ptr(),
            self._described,
        )

    @property
    def softmax(self) -> Softmax:
        return self._kernels

    @property
    def linear_kind(self) -> str:
        return f"{super().linear_kind}-fused"

    def companion(self, config: ModelConfig, read: ReadWeights) -> Model:
        """In int8, whatever this one has: what it guesses is verified."""
        assert unfit(config, block_size=LANES) is None
        return FusedModel(config, read, kernels=self._kernels, precision="int8")

    def transform(
        self, hidden: Tensor, batch: Batch, cache: KVCache, *, depth: int | None = None
    ) -> Tensor:
        spans = [span for bucket in batch.buckets for span in bucket.spans]
        used = [span.block_ids[: span.blocks(LANES)] for span in spans]
        contexts = array("i", [span.context for span in spans])
        counts = array("i", [span.count for span in spans])
        block_counts = array("i", [len(ids) for ids in used])
        block_ids = array("i", chain.from_iterable(used))
        assert sum(counts) == len(hidden)
        assert all(n == span.blocks(LANES) for n, span in zip(block_counts, spans, strict=True))
        step = library.Step(
            len(spans),
            len(hidden),
            *(numbers.buffer_info()[0] for numbers in (contexts, counts, block_counts, block_ids)),
            cache.blocks.data_ptr(),
            cache.blocks.stride(0),
        )
        layers = len(self._described) if depth is None else min(depth, len(self._described))
        self._kernels.run_layers(self._decoder, step, layers, hidden)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        assert isinstance(self._norm, RMSNorm)
        assert isinstance(self._head, KernelLinear)
        return self._kernels.normed_product(
            self._decoder, self._norm.weight, self._head.packed, hidden
        )

    def peaks(self, logits: Tensor) -> list[Peak]:
        return list(starmap(Peak, self._kernels.peaks(logits)))


def _describe(layer: Layer) -> library.Layer:
    norms, heads, mlp = (layer.input_norm, layer.mlp_norm), layer.heads, layer.mlp
    assert isinstance(heads, GroupedHeads)
    assert isinstance(mlp, GatedMLP)
    pointers = [norm.weight.data_ptr() for norm in norms if isinstance(norm, RMSNorm)]
    products = (heads.qkv, heads.output, mlp.gate, mlp.up, mlp.down)
    matrices = [part.packed.matrix for part in products if isinstance(part, KernelLinear)]
    return library.Layer(*pointers, *matrices)
