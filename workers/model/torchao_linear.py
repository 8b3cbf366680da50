"""Weights of 8 or 4 bits on a GPU, by torchao: activations and sums stay bf16.

int8 has one scale for each output; int4 has groups of 32 inputs and torch's tinygemm kernel
(compute capability 8 or more). torchao is not installed with the worker: `pip install torchao`.
"""

from typing import Any, Literal

from torch import Tensor, nn

from workers.device import DeviceUnavailable
from workers.weights.linear import PlainLinear

try:
    from torchao import quantization
except ImportError:
    quantization = None

INT4_GROUP = 32

Precision = Literal["int8", "int4"]


class WeightOnlyLinear(PlainLinear):
    """`F.linear` over a weight that torchao's tensor class multiplies."""

    def __init__(self, weight: Tensor, bias: Tensor | None, config: Any) -> None:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        module.weight = nn.Parameter(weight, requires_grad=False)
        holder = nn.Sequential(module)
        quantization.quantize_(holder, config)
        self.weight = module.weight
        self._bias = bias

    @property
    def nbytes(self) -> int:
        """Of the tensors inside: the class outside tells the size that it stands for."""
        weight: Any = self.weight
        names, _ = weight.__tensor_flatten__()
        return sum(getattr(weight, name).nbytes for name in names)


class WeightOnlyMaker:
    """Makes such products. Raises `DeviceUnavailable` where torchao is missing."""

    def __init__(self, precision: Precision) -> None:
        if quantization is None:
            raise DeviceUnavailable(f"{precision} on a GPU needs torchao: pip install torchao")
        self.precision = precision
        if precision == "int8":
            self._config = quantization.Int8WeightOnlyConfig(set_inductor_config=False)
        else:
            self._config = quantization.Int4WeightOnlyConfig(
                group_size=INT4_GROUP,
                int4_packing_format="tile_packed_to_4d",
                int4_choose_qparams_algorithm="hqq",
                set_inductor_config=False,
            )

    @property
    def kind(self) -> str:
        return f"torchao-{self.precision}"

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> WeightOnlyLinear:
        return WeightOnlyLinear(weight, bias, self._config)
