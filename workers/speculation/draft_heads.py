"""Small trained networks that guess the target's next tokens from its own hidden states.

Medusa (Cai et al. 2024): one residual block for each depth, all from the last hidden state. EAGLE
(Li et al. 2024): one decoder layer over pairs (token, hidden state) that predicts the next hidden
state and feeds on its own prediction. Both read the target's output matrix, cut to the tokens that
it uses most, so their files hold little. The hidden state is taken after the target's final norm.

EAGLE's layer is a Llama's, whatever the target is: what runs a decoder runs the head (`eagle`).
Here is how it is trained, on whole texts at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workers.model.rotary import Rope

HeadKind = Literal["medusa", "eagle"]

DEPTH_MAX = 8
EAGLE_HEAD_DIM = 64
EAGLE_THETA = 10_000.0
NORM_EPS = 1e-5


class UnusableHead(RuntimeError):
    """The file is no draft head, or one of another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShape:
    """What a head needs to know of its target, and how far it guesses ahead."""

    kind: HeadKind
    hidden_size: int
    vocab_size: int
    depth: int

    @property
    def heads(self) -> int:
        """Of EAGLE's layer, as is what follows."""
        return max(1, self.hidden_size // EAGLE_HEAD_DIM)

    @property
    def kv_heads(self) -> int:
        """A third of the heads, where that divides them."""
        return next(n for n in range(max(1, self.heads // 3), 0, -1) if self.heads % n == 0)

    @property
    def mlp_width(self) -> int:
        return self.hidden_size * 8 // 3 // 16 * 16


class MedusaHead(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self._depth, self._width = shape.depth, shape.hidden_size
        self.blocks = nn.Linear(self._width, self._depth * self._width)
        # Starts as the identity: every depth says what the target itself says.
        nn.init.zeros_(self.blocks.weight)
        nn.init.zeros_(self.blocks.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features [rows, hidden] of the last token; those of its successors [rows, depth, hidden].

        Row i of the result guesses the token after the next i + 1.
        """
        moved = F.silu(self.blocks(features)).view(-1, self._depth, self._width)
        return features[:, None] + moved


class _Norm(nn.RMSNorm):
    """In fp32 whatever products are computed in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class EagleHead(nn.Module):
    """Its parameters have the names of a Llama's layer."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        width, query = shape.hidden_size, shape.heads * EAGLE_HEAD_DIM
        key = shape.kv_heads * EAGLE_HEAD_DIM
        self._group = shape.heads // shape.kv_heads
        self.join = nn.Linear(2 * width, width)
        self.input_layernorm = _Norm(width, NORM_EPS)
        self.q_proj = nn.Linear(width, query, bias=False)
        self.k_proj = nn.Linear(width, key, bias=False)
        self.v_proj = nn.Linear(width, key, bias=False)
        self.o_proj = nn.Linear(query, width, bias=False)
        self.post_attention_layernorm = _Norm(width, NORM_EPS)
        self.gate_proj = nn.Linear(width, shape.mlp_width, bias=False)
        self.up_proj = nn.Linear(width, shape.mlp_width, bias=False)
        self.down_proj = nn.Linear(shape.mlp_width, width, bias=False)
        self.norm = _Norm(width, NORM_EPS)
        # Starts near the identity on the hidden state, which already knows a lot.
        with torch.no_grad():
            self.join.weight[:, width:] += torch.eye(width)
        nn.init.zeros_(self.o_proj.weight)
        nn.init.zeros_(self.down_proj.weight)

    def pairs(self, embedded: Tensor, features: Tensor) -> Tensor:
        """Join the embedding of a token with the features of the one before: [..., hidden]."""
        joined: Tensor = self.join(eagle_input(embedded, features))
        return joined

    def keys_values(self, joined: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """What later positions attend to: keys and values [..., heads, dim], one for each query."""
        normed = self.input_layernorm(joined)
        keys = _turned(_by_head(self.k_proj(normed)), rotation)
        values = _by_head(self.v_proj(normed))
        return keys.repeat_interleave(self._group, -2), values.repeat_interleave(self._group, -2)

    def queries(self, joined: Tensor, rotation: Tensor) -> Tensor:
        """[..., heads, dim]"""
        return _turned(_by_head(self.q_proj(self.input_layernorm(joined))), rotation)

    def finish(self, joined: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after attention [..., heads * dim]: predicted features."""
        hidden = joined + self.o_proj(attended)
        normed = self.post_attention_layernorm(hidden)
        hidden = hidden + self.down_proj(F.silu(self.gate_proj(normed)) * self.up_proj(normed))
        features: Tensor = self.norm(hidden)
        return features


def eagle_input(embedded: Tensor, features: Tensor) -> Tensor:
    """What EAGLE joins, side by side: [..., 2 * hidden]."""
    normed = F.rms_norm(embedded, embedded.shape[-1:], None, NORM_EPS)
    return torch.cat((normed, features), -1)


def eagle_rope() -> Rope:
    return Rope(dim=EAGLE_HEAD_DIM, theta=EAGLE_THETA)


def _by_head(x: Tensor) -> Tensor:
    return x.view(*x.shape[:-1], -1, EAGLE_HEAD_DIM)


def _turned(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate heads [..., starts, heads, dim], whose halves are pairs; rotation [starts, 1, dim/2].

    Cosines and sines by hand: complex numbers have no fast gradient.
    """
    cosine, sine = rotation.real, rotation.imag
    first, second = x.chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)


Head = MedusaHead | EagleHead


def new_head(shape: HeadShape) -> Head:
    return MedusaHead(shape) if shape.kind == "medusa" else EagleHead(shape)


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head and the tokens [vocabulary of the head] among which it guesses."""

    shape: HeadShape
    tokens: Tensor
    head: Head


def save_head(path: Path, trained: TrainedHead) -> None:
    """Write weights as fp16, atomically; the shape goes into the file's metadata."""
    shape = trained.shape
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in trained.head.state_dict().items()
    }
    tensors["tokens"] = trained.tokens.to(torch.int32)
    metadata = {
        "kind": shape.kind,
        "hidden_size": str(shape.hidden_size),
        "vocab_size": str(shape.vocab_size),
        "depth": str(shape.depth),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)


def load_head(path: Path, *, hidden_size: int, vocab_size: int) -> TrainedHead:
    """Read a head for a target of these sizes. Raises `UnusableHead` with what is wrong."""
    try:
        with safe_open(path, framework="pt") as file:
            shape = _read_shape(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UnusableHead(f"{path} is not a draft head: {error}") from error
    if (shape.hidden_size, shape.vocab_size) != (hidden_size, vocab_size):
        raise UnusableHead(
            f"{path} was trained for a model with hidden size {shape.hidden_size} and "
            f"{shape.vocab_size} tokens; this one has {hidden_size} and {vocab_size}"
        )
    tokens = tensors.pop("tokens").long()
    head = new_head(shape)
    try:
        head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise UnusableHead(f"{path} lacks weights: {error}") from error
    if not len(tokens) or int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size:
        raise UnusableHead(f"{path} names tokens outside the vocabulary")
    return TrainedHead(shape=shape, tokens=tokens, head=head.eval().requires_grad_(False))


def _read_shape(metadata: dict[str, str]) -> HeadShape:
    kind = metadata["kind"]
    if kind not in get_args(HeadKind):
        raise ValueError(f"unknown kind {kind!r}")
    depth = int(metadata["depth"])
    if not 1 <= depth <= DEPTH_MAX:
        raise ValueError(f"depth {depth} is not in 1..{DEPTH_MAX}")
    return HeadShape(
        kind="medusa" if kind == "medusa" else "eagle",
        hidden_size=int(metadata["hidden_size"]),
        vocab_size=int(metadata["vocab_size"]),
        depth=depth,
    )
