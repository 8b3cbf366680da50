"""The decoder (Llama family): one ragged forward over the concatenated tokens of all requests.

Reads config and weights of a Hugging Face folder. Query and key rows are reordered at load so that
rotary embedding is one complex product; the residual additions and the gate ride on the matrix
products. It owns weights and the KV tensors, and knows nothing of requests.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from workers.attention import Bucket, attend
from workers.kv import KVCache
from workers.linear import Linear, MakeLinear, PackedLinear, choose_linear

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM",)

ReadWeight = Callable[[str], Tensor]


class UnsupportedModel(RuntimeError):
    """The folder holds a model that this decoder cannot run exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder, from its config.json."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float
    rope_theta: float
    tied_embeddings: bool
    eos_token_ids: tuple[int, ...]

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads


def read_config(model_dir: Path) -> ModelConfig:
    raw: dict[str, Any] = json.loads((model_dir / "config.json").read_text())
    _refuse_unknown(raw)
    eos = raw["eos_token_id"]
    rope = raw.get("rope_parameters") or {}
    heads = raw["num_attention_heads"]
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        context_length=raw["max_position_embeddings"],
        norm_eps=raw["rms_norm_eps"],
        rope_theta=rope.get("rope_theta") or raw.get("rope_theta", 10_000.0),
        tied_embeddings=raw.get("tie_word_embeddings", False),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
    )


def _refuse_unknown(raw: dict[str, Any]) -> None:
    architectures = raw.get("architectures") or ["unknown"]
    if architectures[0] not in SUPPORTED_ARCHITECTURES:
        raise UnsupportedModel(f"architecture {architectures[0]} is not supported")
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise UnsupportedModel(f"rope type {rope['rope_type']} is not supported")
    for flag in ("attention_bias", "mlp_bias"):
        if raw.get(flag):
            raise UnsupportedModel(f"{flag} is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise UnsupportedModel(f"activation {raw['hidden_act']} is not supported")


@dataclass(frozen=True, slots=True)
class Layer:
    input_norm: Tensor
    qkv: Linear
    output: Linear
    mlp_norm: Tensor
    gate: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input: the tokens of all requests, concatenated in bucket order."""

    tokens: Tensor  # [tokens]
    positions: Tensor  # [tokens]
    slots: Tensor  # [tokens]: where each token's key and value go
    buckets: list[Bucket]
    logit_rows: Tensor  # [rows]: the tokens whose next token is wanted


class Model:
    def __init__(self, config: ModelConfig, read: ReadWeight, *, make: MakeLinear | None = None):
        self.config = config
        self.make_linear = make or choose_linear(read("model.layers.0.mlp.up_proj.weight"))
        self._layers = [self._load_layer(read, index) for index in range(config.layers)]
        self._norm = read("model.norm.weight").clone()
        head = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
        self._head = self.make_linear(read(head))
        # Read again, and last: of this mapping only the rows that are looked up become resident.
        self._embedding = read("model.embed_tokens.weight")
        self._rotations = _rotations(config)

    @property
    def linear_kind(self) -> str:
        return "onednn-fp32-packed" if self.make_linear is PackedLinear else "fp32"

    def new_cache(self, *, num_blocks: int, block_size: int) -> KVCache:
        return KVCache(
            layers=self.config.layers,
            num_blocks=num_blocks,
            block_size=block_size,
            kv_heads=self.config.kv_heads,
            head_dim=self.config.head_dim,
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
        config = self.config
        hidden = self._embedding.index_select(0, batch.tokens)  # [tokens, hidden]
        rotation = self._rotations.index_select(0, batch.positions)  # [tokens, 1, dim / 2]
        rotated = config.heads + config.kv_heads
        attended = hidden.new_empty(hidden.shape[0], config.heads * config.head_dim)
        for index, layer in enumerate(self._layers[:depth]):
            normed = self._rms_norm(hidden, layer.input_norm)
            qkv = layer.qkv(normed).view(-1, rotated + config.kv_heads, config.head_dim)
            halves = qkv[:, :rotated].view(-1, rotated, config.head_dim // 2, 2)
            pairs = torch.view_as_complex(halves)
            pairs.mul_(rotation)
            cache.slots[index].index_copy_(0, batch.slots, qkv[:, config.heads :])
            attend(qkv[:, : config.heads], cache.blocks[index], batch.buckets, attended)
            hidden = layer.output.plus(attended, hidden)
            normed = self._rms_norm(hidden, layer.mlp_norm)
            gated = layer.up.times(normed, layer.gate.silu(normed))
            hidden = layer.down.plus(gated, hidden)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocab] of hidden states [rows, hidden]."""
        return self._head(self.normed(hidden))

    @torch.inference_mode()
    def normed(self, hidden: Tensor) -> Tensor:
        """Hidden states after the final norm, which the head reads: [rows, hidden]."""
        return self._rms_norm(hidden, self._norm)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)

    def _load_layer(self, read: ReadWeight, index: int) -> Layer:
        prefix = f"model.layers.{index}"
        config = self.config
        query = _pair_rows(read(f"{prefix}.self_attn.q_proj.weight"), config.head_dim)
        key = _pair_rows(read(f"{prefix}.self_attn.k_proj.weight"), config.head_dim)
        value = read(f"{prefix}.self_attn.v_proj.weight")
        return Layer(
            input_norm=read(f"{prefix}.input_layernorm.weight").clone(),
            qkv=self.make_linear(torch.cat((query, key, value))),
            output=self.make_linear(read(f"{prefix}.self_attn.o_proj.weight")),
            mlp_norm=read(f"{prefix}.post_attention_layernorm.weight").clone(),
            gate=self.make_linear(read(f"{prefix}.mlp.gate_proj.weight")),
            up=self.make_linear(read(f"{prefix}.mlp.up_proj.weight")),
            down=self.make_linear(read(f"{prefix}.mlp.down_proj.weight")),
        )


def _pair_rows(weight: Tensor, head_dim: int) -> Tensor:
    """Bring rows i and i + dim / 2 of each head together: they rotate as one complex number.

    Queries and keys are reordered alike, so every dot product keeps its value.
    """
    halves = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def _rotations(config: ModelConfig) -> Tensor:
    # The exponents are rounded to fp32 as the reference implementation rounds them.
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    angles = torch.outer(torch.arange(config.context_length).float(), frequencies)
    return torch.polar(torch.ones_like(angles), angles)[:, None]  # [context, 1, dim / 2]


def load_model(model_dir: Path) -> Model:
    """Load the model of a folder; weights are mapped, packed one by one and let go."""
    path = model_dir / "model.safetensors"

    def read(name: str) -> Tensor:
        # A mapping of its own for each tensor: a shared one would keep the whole file resident.
        with safe_open(path, framework="pt") as weights:
            tensor: Tensor = weights.get_tensor(name)
        return tensor

    return Model(read_config(model_dir), read)
