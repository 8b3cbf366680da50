"""The other half of a layer: the dense MLPs, gated (SwiGLU) and plain (ReLU)."""

from torch import Tensor

from workers.model.shape import GATED_PARTS
from workers.weights.checkpoint import ReadWeights, read_linear
from workers.weights.linear import Linear, MakeLinear


class GatedMLP:
    """down(silu(gate x) * up x)."""

    def __init__(self, gate: Linear, up: Linear, down: Linear) -> None:
        self.gate, self.up, self.down = gate, up, down

    @property
    def nbytes(self) -> int:
        return self.gate.nbytes + self.up.nbytes + self.down.nbytes

    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor:
        return self.down.plus(self._gated(normed), hidden)

    def alone(self, normed: Tensor) -> Tensor:
        """Without the residual."""
        return self.down(self._gated(normed))

    def _gated(self, normed: Tensor) -> Tensor:
        return self.up.times(normed, self.gate.silu(normed))


def read_gated_mlp(
    read: ReadWeights,
    prefix: str,
    shape: tuple[int, int],
    make: MakeLinear,
    parts: tuple[str, str, str] = GATED_PARTS,
    *,
    biased: bool = False,
) -> GatedMLP:
    """The MLP below `prefix`, of `shape` [width, hidden]."""
    gate, up, down = (f"{prefix}.{part}" for part in parts)
    return GatedMLP(
        read_linear(read, gate, shape, make, biased=biased),
        read_linear(read, up, shape, make, biased=biased),
        read_linear(read, down, shape[::-1], make, biased=biased),
    )


class ReluMLP:
    """down(relu(up x)): most of its activations are zero in a trained model."""

    def __init__(self, up: Linear, down: Linear) -> None:
        self._up, self._down = up, down

    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor:
        return self._down.plus(self._up.relu(normed), hidden)
