"""The decoder: one ragged forward over the concatenated tokens of all requests.

A layer is two halves, attention (`attention_heads`) and MLP (`mlp`, `experts`), each given the
normed tokens and the residual to add to. It owns weights and the KV tensors, and knows nothing of
requests. What differs between families is read by `families`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.cache.attention import Bucket, attend
from workers.cache.kv import KVCache
from workers.cache.paged import Kernel, Paged, gathered
from workers.model.attention_heads import Attend, GroupedHeads, LatentHeads, Step
from workers.model.experts import ExpertUse, SparseMLP
from workers.model.families import read_config
from workers.model.mlp import ReluMLP, read_gated_mlp
from workers.model.rotary import rotations
from workers.model.sampler import TORCH_SOFTMAX, Peak, Softmax, find_peaks
from workers.model.shape import ModelConfig
from workers.model.torchao_linear import WeightOnlyMaker
from workers.weights.checkpoint import BadWeights, ReadWeights, Weights, read_linear
from workers.weights.linear import KernelMaker, MakeLinear, Weighed, choose_linear
from workers.weights.lora import AdaptedWeights

# OPT's first two learned positions stand for padding.
LEARNED_POSITION_OFFSET = 2
# Of the weight on which the kinds of products are tried.
SAMPLE_ROWS = 512
# Tensors that some published files carry and no forward reads.
UNUSED_SUFFIXES = ("rotary_emb.inv_freq",)


class Norm(Protocol):
    def __call__(self, x: Tensor) -> Tensor: ...


class Heads(Protocol):
    def __call__(self, normed: Tensor, hidden: Tensor, index: int, step: Step) -> Tensor: ...


class MLP(Protocol):
    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor: ...


class RMSNorm:
    def __init__(self, read: ReadWeights, name: str, config: ModelConfig) -> None:
        self.weight = read(f"{name}.weight", (config.hidden_size,)).clone()
        self._eps = config.norm_eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self._eps)


class LayerNorm:
    def __init__(self, read: ReadWeights, name: str, config: ModelConfig) -> None:
        self._weight = read(f"{name}.weight", (config.hidden_size,)).clone()
        self._bias = read(f"{name}.bias", (config.hidden_size,)).clone()
        self._eps = config.norm_eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


@dataclass(frozen=True, slots=True)
class Layer:
    input_norm: Norm
    heads: Heads
    mlp_norm: Norm
    mlp: MLP


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input: the tokens of all requests, concatenated in bucket order."""

    tokens: Tensor  # [tokens]
    positions: Tensor  # [tokens]
    slots: Tensor  # [tokens]: where each token's key and value go
    buckets: list[Bucket]
    logit_rows: Tensor  # [rows]: the tokens whose next token is wanted
    paged: Paged | None = None  # where the model has a kernel that reads block tables


class Model:
    def __init__(self, config: ModelConfig, read: ReadWeights, *, make: MakeLinear | None = None):
        self.config = config
        root = "model" if config.rope else "model.decoder"
        embedding = f"{root}.embed_tokens.weight"
        rows_by_token = (config.vocab_size, config.hidden_size)
        self.make_linear = make or choose_linear(read(embedding, rows_by_token)[:SAMPLE_ROWS])
        self._weighed = Weighed(self.make_linear)
        self._layers = [self._load_layer(read, root, index) for index in range(config.layers)]
        self._rotations: Tensor | None = None
        if config.rope:
            self._norm: Norm = RMSNorm(read, f"{root}.norm", config)
        else:
            self._norm = LayerNorm(read, f"{root}.final_layer_norm", config)
            rows = config.context_length + LEARNED_POSITION_OFFSET
            self._positions = read(f"{root}.embed_positions.weight", (rows, config.hidden_size))
        head = embedding if config.tied_embeddings else "lm_head.weight"
        self._head = self._weighed(read(head, rows_by_token))
        # Read again, and last: of this mapping only the rows that are looked up become resident.
        self._embedding = read(embedding, rows_by_token)
        self._output = self._embedding if config.tied_embeddings else read(head, rows_by_token)
        if config.rope:
            table = rotations(config.rope, config.context_length)
            self._rotations = table.to(self._embedding.device)
        # Set at load where the device has one; it reads `Batch.paged`.
        self.kernel: Kernel | None = None

    @property
    def device(self) -> torch.device:
        return self._embedding.device

    @property
    def softmax(self) -> Softmax:
        """By what tokens are drawn from logits that this model gave."""
        return TORCH_SOFTMAX

    @property
    def linear_kind(self) -> str:
        """Names what computes: calibrations and quality reports are kept by it."""
        if self.device.type == "cpu" and self._embedding.dtype is torch.float32:
            return self.make_linear.kind
        return f"{self.precision}-{self.device.type}"

    @property
    def precision(self) -> str:
        """Of the weights and the products with them, in the words of an offer."""
        if isinstance(self.make_linear, KernelMaker | WeightOnlyMaker):
            return self.make_linear.precision
        return str(self._embedding.dtype).removeprefix("torch.")

    @property
    def waits_for_counts(self) -> bool:
        """Whether a step asks the device how many tokens chose an expert: it can't be recorded."""
        return any(mlp.waits_for_counts for mlp in self._sparse.values())

    @property
    def weight_bytes(self) -> int:
        """What the weights of all products take, the head's included; embeddings are not."""
        return self._weighed.nbytes

    @property
    def full_weight_bytes(self) -> int:
        """What they would take in fp32."""
        return 4 * self._weighed.numbers

    @property
    def expert_bytes(self) -> tuple[int, int]:
        """What all routed experts take, and those that one token passes; zeros without any."""
        mlps = self._sparse.values()
        return sum(m.expert_bytes for m in mlps), sum(m.active_expert_bytes for m in mlps)

    @property
    def _sparse(self) -> dict[int, SparseMLP]:
        layers = enumerate(self._layers)
        return {index: layer.mlp for index, layer in layers if isinstance(layer.mlp, SparseMLP)}

    def take_expert_use(self) -> ExpertUse:
        """What the sparse layers did since the last call."""
        uses = {index: mlp.take_use() for index, mlp in self._sparse.items()}
        loads = {index: load for index, (load, _) in uses.items()}
        return ExpertUse(loads, sum(seconds for _, seconds in uses.values()))

    def new_cache(self, *, num_blocks: int, block_size: int) -> KVCache:
        config = self.config
        return KVCache(
            layers=config.layers,
            num_blocks=num_blocks,
            block_size=block_size,
            heads=1 if config.latent else 2 * config.kv_heads,
            head_dim=config.head_dim,
            like=self._embedding,
        )

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Store keys and values of all tokens; logits [rows, vocab] where they are wanted."""
        hidden = self.hidden_states(batch, cache)
        return self.logits(hidden.index_select(0, batch.logit_rows))

    @torch.inference_mode()
    def hidden_states(self, batch: Batch, cache: KVCache, *, depth: int | None = None) -> Tensor:
        """What the first `depth` layers (all by default) make of every token: [tokens, hidden].

        It is what `logits` takes: the final norm is not applied yet.
        """
        return self.transform(self._embed(batch), batch, cache, depth=depth)

    def transform(
        self, hidden: Tensor, batch: Batch, cache: KVCache, *, depth: int | None = None
    ) -> Tensor:
        """What the layers make of `hidden` [tokens, hidden], which may be overwritten."""
        return self._run(hidden, self._step(batch, cache), range(self.config.layers)[:depth])

    def companion(self, config: ModelConfig, read: ReadWeights) -> "Model":
        """A small decoder beside this one that runs by the same means."""
        return Model(config, read, make=self.make_linear)

    def _step(self, batch: Batch, cache: KVCache) -> Step:
        rotation = None
        if self._rotations is not None:
            rotation = self._rotations.index_select(0, batch.positions)
        width = self.config.heads * self.config.head_dim
        attended = self._embedding.new_empty(len(batch.tokens), width)
        return Step(cache, batch.slots, self._attend(batch), rotation, attended)

    def _attend(self, batch: Batch) -> Attend:
        if batch.paged is None:
            return partial(attend, buckets=batch.buckets)
        return partial(self.kernel or gathered, paged=batch.paged)

    def _run(self, hidden: Tensor, step: Step, layers: range) -> Tensor:
        for index in layers:
            layer = self._layers[index]
            hidden = layer.heads(layer.input_norm(hidden), hidden, index, step)
            hidden = layer.mlp(layer.mlp_norm(hidden), hidden)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocab] of hidden states [rows, hidden], always in fp32."""
        return self._head(self.normed(hidden)).float()

    def peaks(self, logits: Tensor) -> list[Peak]:
        """The likeliest token of each row [rows, vocab] that `logits` gave."""
        return find_peaks(logits)

    @torch.inference_mode()
    def normed(self, hidden: Tensor) -> Tensor:
        """Hidden states after the final norm, which the head reads: [rows, hidden]."""
        return self._norm(hidden)

    def embedding_rows(self, tokens: Tensor) -> Tensor:
        """What the first layer is given for these tokens: [tokens, hidden]."""
        return self._embedding.index_select(0, tokens)

    def output_rows(self, tokens: Tensor) -> Tensor:
        """Rows of the output matrix: the logits of `tokens` are their products with `normed`."""
        return self._output.index_select(0, tokens)

    def _embed(self, batch: Batch) -> Tensor:
        hidden = self._embedding.index_select(0, batch.tokens)  # [tokens, hidden]
        if self._rotations is None:
            rows = batch.positions + LEARNED_POSITION_OFFSET
            hidden += self._positions.index_select(0, rows)
        return hidden

    def _load_layer(self, read: ReadWeights, root: str, index: int) -> Layer:
        config, make = self.config, self._weighed
        prefix = f"{root}.layers.{index}"
        attention = f"{prefix}.self_attn"
        if config.rope is None:
            return Layer(
                input_norm=LayerNorm(read, f"{prefix}.self_attn_layer_norm", config),
                heads=GroupedHeads(config, read, attention, make),
                mlp_norm=LayerNorm(read, f"{prefix}.final_layer_norm", config),
                mlp=self._load_mlp(read, prefix, index),
            )
        kind = LatentHeads if config.latent else GroupedHeads
        return Layer(
            input_norm=RMSNorm(read, f"{prefix}.input_layernorm", config),
            heads=kind(config, read, attention, make),
            mlp_norm=RMSNorm(read, f"{prefix}.post_attention_layernorm", config),
            mlp=self._load_mlp(read, prefix, index),
        )

    def _load_mlp(self, read: ReadWeights, prefix: str, index: int) -> MLP:
        config = self.config
        if config.sparse is not None and index in config.sparse.layers:
            return SparseMLP(config, read, prefix, self._weighed)
        shape = (config.mlp_width, config.hidden_size)
        make, biased = self._weighed, config.mlp_bias
        if config.rope is None:
            return ReluMLP(
                read_linear(read, f"{prefix}.fc1", shape, make, biased=biased),
                read_linear(read, f"{prefix}.fc2", shape[::-1], make, biased=biased),
            )
        return read_gated_mlp(read, f"{prefix}.mlp", shape, make, biased=biased)


BuildModel = Callable[[ModelConfig, ReadWeights], Model]


def load_model(
    model_dir: Path, adapter_dir: Path | None = None, *, build: BuildModel = Model
) -> Model:
    """Load the model of a folder; weights are mapped, packed one by one and let go.

    An adapter is merged into them on the way. Raises `UnsupportedModel` or `BadWeights`, each with
    what is wrong and where.
    """
    config = read_config(model_dir)
    weights = AdaptedWeights(model_dir, adapter_dir) if adapter_dir else Weights(model_dir)
    model = build(config, weights)
    _refuse_unread(weights, config)
    return model


def _refuse_unread(weights: Weights, config: ModelConfig) -> None:
    """A tensor that the decoder has no use for means that it computes another model."""
    # Layers past the last one predict further tokens (DeepSeek-V3); the text does not need them.
    beyond = f"model.layers.{config.layers}."
    for name in weights.unread():
        tied_head = config.tied_embeddings and name == "lm_head.weight"
        if not (tied_head or name.endswith(UNUSED_SUFFIXES) or name.startswith(beyond)):
            raise BadWeights(
                f"{weights.folder}: tensor {name} has no place in a {config.family} of "
                "this config.json"
            )
