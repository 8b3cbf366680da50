"""The shape of a decoder: what its parts are built by, whatever family it came from."""

from dataclasses import dataclass
from typing import Literal

from workers.model.rotary import Rope

GATED_PARTS = ("gate_proj", "up_proj", "down_proj")
# DeepSeek's modelling code norms its latents with a constant that no config carries.
LATENT_NORM_EPS = 1e-6


class UnsupportedModel(RuntimeError):
    """The folder holds a model that this decoder cannot run exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek): the widths of its parts, per head."""

    rank: int
    query_rank: int | None
    plain_dim: int
    value_dim: int
    # Times 1 / sqrt(plain_dim + rope dim).
    sharpness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """The expert-routed layers: which they are, and how a token finds its experts."""

    layers: frozenset[int]
    experts: int
    width: int
    top_k: int
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalised: bool = False
    scale: float = 1.0
    groups: int = 1
    groups_kept: int = 1
    # A learned bias that chooses but never weighs (DeepSeek-V3's balancing).
    has_choice_bias: bool = False
    shared: str | None = None
    shared_width: int = 0
    has_shared_gate: bool = False
    gate: str = "mlp.gate"
    expert: str = "mlp.experts"
    parts: tuple[str, str, str] = GATED_PARTS

    def __post_init__(self) -> None:
        reachable = self.experts // self.groups * self.groups_kept
        if self.experts % self.groups or self.groups_kept > self.groups or self.top_k > reachable:
            raise UnsupportedModel(
                f"config.json: {self.top_k} of {self.experts} experts cannot be chosen from "
                f"{self.groups_kept} of {self.groups} groups"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder. `kv_heads` and `head_dim` are those of what the cache holds."""

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    mlp_width: int
    norm_eps: float
    tied_embeddings: bool
    eos_token_ids: tuple[int, ...]
    rope: Rope | None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    # Queries and keys are normed before they rotate: each head alone, or all heads as one vector.
    head_norms: Literal["none", "each", "joint"] = "none"
    latent: Latent | None = None
    sparse: Sparse | None = None

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads
