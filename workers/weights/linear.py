"""Matrix products of the decoder: plain, prepacked once by oneDNN (full fp32), or by our kernels in
fp32 or int8; for CPUs.

`F.linear` repacks its weight at every call with two or more tokens, which makes verifying drafts
expensive; a weight packed once does not. The packed kind tests itself against the plain one at load
and stays away where the processor or the build gives anything else.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.kernels.library import Kernels

PACKED_BATCH_HINT = 8
SELF_TEST_TOKENS = (1, 3, 17)
SELF_TEST_TOLERANCE = 1e-4


class Linear(Protocol):
    """`x @ W.T + bias`, alone or fused with what the decoder does next."""

    @property
    def nbytes(self) -> int:
        """What its weight takes in memory."""

    def __call__(self, x: Tensor) -> Tensor: ...
    def silu(self, x: Tensor) -> Tensor: ...
    def relu(self, x: Tensor) -> Tensor: ...
    def times(self, x: Tensor, factor: Tensor) -> Tensor: ...
    def plus(self, x: Tensor, term: Tensor) -> Tensor: ...


class MakeLinear(Protocol):
    """Makes a product of a weight [out, in] and, where the family has one, its bias [out]."""

    @property
    def kind(self) -> str: ...

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Linear: ...


class Followed:
    """What the decoder does next, computed on the product in place."""

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def relu(self, x: Tensor) -> Tensor:
        return self(x).relu_()

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return self(x).mul_(factor)

    def plus(self, x: Tensor, term: Tensor) -> Tensor:
        return self(x).add_(term)


class PlainLinear(Followed):
    kind = "fp32"

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight.contiguous()
        self._bias = bias

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self._bias)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x))


class PackedLinear:
    kind = "onednn-fp32-packed"

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self._weight = reorder(weight.contiguous(), PACKED_BATCH_HINT)
        self._bias = bias
        self._unary = torch.ops.mkldnn._linear_pointwise.default
        self._binary = torch.ops.mkldnn._linear_pointwise.binary

    @property
    def nbytes(self) -> int:
        return int(self._weight.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self._unary(x, self._weight, self._bias, "none", [], "")
        return result

    def silu(self, x: Tensor) -> Tensor:
        result: Tensor = self._unary(x, self._weight, self._bias, "swish", [], "")
        return result

    def relu(self, x: Tensor) -> Tensor:
        result: Tensor = self._unary(x, self._weight, self._bias, "relu", [], "")
        return result

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        result: Tensor = self._binary(x, factor, self._weight, self._bias, "mul")
        return result

    def plus(self, x: Tensor, term: Tensor) -> Tensor:
        result: Tensor = self._binary(x, term, self._weight, self._bias, "add")
        return result


class KernelLinear(Followed):
    """A product of the kernels: fp32, or int8 weights and activations (`kernels/`)."""

    def __init__(
        self, kernels: Kernels, weight: Tensor, bias: Tensor | None = None, *, exact: bool
    ) -> None:
        self._kernels = kernels
        self.packed = kernels.pack(weight, bias, exact=exact)

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return self._kernels.product(self.packed, x)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x), inplace=True)


class KernelMaker:
    """`precision` in the words of an offer: "float32" or "int8"."""

    def __init__(self, kernels: Kernels, *, precision: str) -> None:
        self._kernels = kernels
        self.precision = precision

    @property
    def kind(self) -> str:
        return f"{self.precision.replace('float', 'fp')}-{self._kernels.instructions}"

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> KernelLinear:
        return KernelLinear(self._kernels, weight, bias, exact=self.precision == "float32")


class Weighed:
    """Makes products as another maker does, and adds up what their weights take."""

    def __init__(self, make: MakeLinear) -> None:
        self._make = make
        self.nbytes = 0
        self.numbers = 0

    @property
    def kind(self) -> str:
        return self._make.kind

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        self.numbers += weight.numel()
        linear = self._make(weight, bias)
        self.nbytes += linear.nbytes
        return linear


def choose_linear(sample_weight: Tensor) -> MakeLinear:
    """The fastest kind that reproduces the plain product on this machine."""
    on_cpu = sample_weight.device.type == "cpu"
    return PackedLinear if on_cpu and packed_is_correct(sample_weight) else PlainLinear


def packed_is_correct(weight: Tensor) -> bool:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or weight.dtype != torch.float32:
        return False
    try:
        bias = weight[:, 0].contiguous()
        packed, plain = PackedLinear(weight, bias), PlainLinear(weight, bias)
        return all(_agree(packed, plain, weight.shape, tokens) for tokens in SELF_TEST_TOKENS)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _agree(packed: Linear, plain: Linear, shape: torch.Size, tokens: int) -> bool:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, shape[1], generator=generator)
    y = torch.randn(tokens, shape[0], generator=generator)
    pairs = (
        (packed(x), plain(x)),
        (packed.silu(x), plain.silu(x)),
        (packed.relu(x), plain.relu(x)),
        (packed.times(x, y), plain.times(x, y)),
        (packed.plus(x, y), plain.plus(x, y)),
    )
    return all(
        torch.allclose(a, b, rtol=SELF_TEST_TOLERANCE, atol=SELF_TEST_TOLERANCE * scale)
        for a, b in pairs
        for scale in (float(b.abs().max()) + 1e-6,)
    )
