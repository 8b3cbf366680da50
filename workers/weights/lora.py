"""A LoRA adapter in PEFT's layout, merged into the weights as they are read.

Merged once at load it costs nothing per token; an adapter that would not be merged whole and
exactly (DoRA, trained biases or embeddings, a tensor without its place) is refused.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.json_values import Fields, Json, JsonRefused, read_object
from workers.weights.checkpoint import BadWeights, Weights

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Fields of the config that change what the adapter computes, with the one value that is merged.
EXACT: Mapping[str, Json] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "lora_bias": False,
    "layer_replication": None,
    "trainable_token_indices": None,
    "target_parameters": None,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How strongly an adapter pulls; some modules, by their names' ends, have their own alpha."""

    alpha: float
    special: list[tuple[re.Pattern[str], float]]
    rank_stabilised: bool


class AdaptedWeights(Weights):
    """The base model's weights W as W + B A alpha / r (alpha / sqrt(r) where rank-stabilised)."""

    def __init__(self, model_dir: Path, adapter_dir: Path) -> None:
        super().__init__(model_dir)
        self._adapter = adapter_dir / TENSORS
        self._settings = _read_settings(adapter_dir / CONFIG)
        tensors = _read_tensors(self._adapter)
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for module in sorted({_module_of(name, self._adapter) for name in tensors}):
            self._pairs[f"{module}.weight"] = self._pair(module, tensors)

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        weight = super().__call__(name, shape)
        pair = self._pairs.get(name)
        if pair is None:
            return weight
        down, up = pair
        module = name.removesuffix(".weight")
        return weight + (up @ down) * self._scale(module, rank=down.shape[0])

    def _pair(self, module: str, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A [r, in] and B [out, r] of one module, which must fit the weight they change."""
        names = [f"{PREFIX}{module}.lora_{part}.weight" for part in "AB"]
        for name in names:
            if name not in tensors:
                raise BadWeights(f"{self._adapter}: tensor {name} is missing")
        down, up = (tensors[name] for name in names)
        weight = f"{module}.weight"
        if weight not in self:
            raise BadWeights(f"{self._adapter}: the base model has no tensor {weight}")
        shape = self.shape(weight)
        rank = down.shape[0]
        if len(shape) != 2 or down.shape != (rank, shape[1]) or up.shape != (shape[0], rank):
            raise BadWeights(
                f"{self._adapter}: {module} has A {list(down.shape)} and B {list(up.shape)}, "
                f"which do not fit the base model's {list(shape)}"
            )
        return down, up

    def _scale(self, module: str, *, rank: int) -> float:
        alpha = self._settings.alpha
        for pattern, special in self._settings.special:
            if pattern.fullmatch(module):
                alpha = special
        return alpha / (math.sqrt(rank) if self._settings.rank_stabilised else rank)


def _read_settings(path: Path) -> Settings:
    try:
        fields = Fields(read_object(path), source=str(path))
        return _settings(fields)
    except FileNotFoundError:
        raise BadWeights(f"{path} is missing: it is no adapter folder") from None
    except JsonRefused as error:
        raise BadWeights(str(error)) from error


def _settings(fields: Fields) -> Settings:
    for name, exact in EXACT.items():
        if fields.raw.get(name):
            fields.require(name, exact)
    if not fields.has("peft_type") or not fields.has("lora_alpha"):
        raise JsonRefused(f"{fields.source} names no peft_type LORA with a lora_alpha")
    special = Fields(fields.within("alpha_pattern"), source=f"{fields.source}: alpha_pattern")
    return Settings(
        alpha=fields.number("lora_alpha"),
        special=[(_compiled(name, special.source), special.number(name)) for name in special.raw],
        rank_stabilised=fields.flag("use_rslora", False),
    )


def _compiled(name: str, source: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"(.*\.)?({name})")
    except (re.error, RecursionError, OverflowError) as error:
        raise JsonRefused(f"{source}: {name[:100]!r} is no pattern: {error}") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadWeights(f"{path} is missing: save the adapter as safetensors")
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in list(opened.keys())}
    except (OSError, SafetensorError) as error:
        raise BadWeights(f"{path} is not a whole safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not math.isfinite(float(tensor.float().sum())):
            raise BadWeights(f"{path}: tensor {name} holds NaN, infinity or no real numbers")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _module_of(name: str, path: Path) -> str:
    found = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_[AB]\.weight", name)
    if found is None:
        raise BadWeights(f"{path}: tensor {name} is not supported: only LoRA's A and B are merged")
    return found[1]
