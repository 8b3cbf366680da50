"""Small trained networks that guess the target's next tokens from its own hidden states.

Medusa (Cai et al. 2024): one residual block for each depth, all from the last hidden state. EAGLE
(Li et al. 2024): one decoder layer over pairs (token, hidden state) that predicts the next hidden
state and feeds on its own prediction. Both read the target's output matrix, cut to the tokens that
it uses most, so their files hold little. The hidden state is taken after the target's final norm.

EAGLE sees the last `WINDOW` positions only, by distance: its state is small and bounded, and a
prefix that came from the cache, whose hidden states nobody has, does not matter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

HeadKind = Literal["medusa", "eagle"]

WINDOW = 32
DEPTH_MAX = 8
EAGLE_HEADS = 6
EAGLE_HEAD_DIM = 64
EAGLE_MLP = 1024
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


class EagleHead(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        width, inner = shape.hidden_size, EAGLE_HEADS * EAGLE_HEAD_DIM
        self.join = nn.Linear(2 * width, width)
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.distance = nn.Parameter(torch.zeros(EAGLE_HEADS, WINDOW + DEPTH_MAX))
        self.mlp_norm = nn.Parameter(torch.ones(width))
        self.gate_up = nn.Linear(width, 2 * EAGLE_MLP, bias=False)
        self.down = nn.Linear(EAGLE_MLP, width, bias=False)
        self.final_norm = nn.Parameter(torch.ones(width))
        # Starts near the identity on the hidden state, which already knows a lot.
        with torch.no_grad():
            self.join.weight[:, width:] += torch.eye(width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.down.weight)

    def pairs(self, embedded: Tensor, features: Tensor) -> Tensor:
        """Join the embedding of a token with the features of the one before: [..., hidden]."""
        normed = F.rms_norm(embedded, embedded.shape[-1:], None, NORM_EPS)
        joined: Tensor = self.join(torch.cat((normed, features), -1))
        return joined

    def keys_values(self, joined: Tensor) -> Tensor:
        """What later positions attend to: [..., 2, heads, dim]."""
        projected = self.key_value(_norm(joined, self.attention_norm))
        shaped: Tensor = projected.unflatten(-1, (2, EAGLE_HEADS, EAGLE_HEAD_DIM))
        return shaped

    def queries(self, joined: Tensor) -> Tensor:
        """[..., heads, dim]"""
        projected = self.query(_norm(joined, self.attention_norm))
        shaped: Tensor = projected.unflatten(-1, (EAGLE_HEADS, EAGLE_HEAD_DIM))
        return shaped

    def finish(self, joined: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after attention [..., heads * dim]: predicted features."""
        hidden = joined + self.output(attended)
        gate, up = self.gate_up(_norm(hidden, self.mlp_norm)).chunk(2, -1)
        return _norm(hidden + self.down(F.silu(gate) * up), self.final_norm)


Head = MedusaHead | EagleHead


def new_head(shape: HeadShape) -> Head:
    return MedusaHead(shape) if shape.kind == "medusa" else EagleHead(shape)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, NORM_EPS)


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
