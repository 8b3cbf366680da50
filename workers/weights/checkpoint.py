"""The tensors of a checkpoint folder: one safetensors file, or shards under an index.

Nothing is read before it is asked for, every tensor is checked for its shape and for NaN, and what
goes wrong is said with the file's and the tensor's name. Tensors come out as fp32.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.weights.linear import Linear, MakeLinear

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class BadWeights(RuntimeError):
    """A weight is missing, damaged or of another shape than the config says."""


class ReadWeights(Protocol):
    """Looks tensors up by name; `shape` is what the decoder needs of them."""

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor: ...
    def __contains__(self, name: str) -> bool: ...


class Index(msgspec.Struct, frozen=True):
    """Which file of the folder holds which tensor."""

    weight_map: dict[str, str]


class Weights:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = _files_by_name(folder)
        self._checked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        file = self._files.get(name)
        if file is None:
            raise BadWeights(f"{self.folder}: tensor {name} is missing")
        try:
            # A mapping of its own for each tensor: a shared one would keep all resident.
            with safe_open(self.folder / file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BadWeights(f"{self.folder / file}: {name} cannot be read: {error}") from error
        if name not in self._checked:
            # Once only: looking at every number makes the whole mapping resident.
            self._check(tensor, name, shape, file)
            self._checked.add(name)
        return tensor.float()

    @property
    def names(self) -> list[str]:
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that the file gives, without reading the tensor."""
        with safe_open(self.folder / self._files[name], framework="pt") as opened:
            return tuple(opened.get_slice(name).get_shape())

    def unread(self) -> list[str]:
        """Tensors that nobody asked for: a decoder that ignores weights is not the model."""
        return sorted(set(self._files) - self._checked)

    def _check(self, tensor: Tensor, name: str, shape: tuple[int, ...], file: str) -> None:
        where = f"{self.folder / file}: tensor {name}"
        if not tensor.is_floating_point():
            raise BadWeights(f"{where} holds {tensor.dtype}, not floating-point numbers")
        if tensor.shape != shape:
            raise BadWeights(f"{where} has shape {list(tensor.shape)}, expected {list(shape)}")
        if not math.isfinite(float(tensor.sum(dtype=torch.float32))):
            raise BadWeights(f"{where} holds NaN or infinity")


def _files_by_name(folder: Path) -> dict[str, str]:
    index = folder / INDEX
    if (folder / SINGLE).is_file():
        return dict.fromkeys(_names(folder / SINGLE), SINGLE)
    if not index.is_file():
        raise BadWeights(
            f"{folder} holds neither {SINGLE} nor {INDEX}; "
            "other formats (.bin, .pt) can run code when read: convert them to safetensors"
        )
    try:
        listed = msgspec.json.decode(index.read_bytes(), type=Index).weight_map
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadWeights(f"{index} is damaged: {error!r}") from error
    for file in sorted(set(listed.values())):
        if Path(file).name != file or not (folder / file).is_file():
            raise BadWeights(f"{index} names {file}, which is not in the folder")
        absent = {name for name in listed if listed[name] == file} - set(_names(folder / file))
        if absent:
            raise BadWeights(f"{folder / file}: tensor {min(absent)} is missing")
    return listed


def _names(path: Path) -> Iterable[str]:
    try:
        with safe_open(path, framework="pt") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise BadWeights(f"{path} is not a whole safetensors file: {error}") from error


def read_linear(
    read: ReadWeights, name: str, shape: tuple[int, int], make: MakeLinear, *, biased: bool = False
) -> Linear:
    weight = read(f"{name}.weight", shape)
    return make(weight, read(f"{name}.bias", shape[:1]).clone() if biased else None)
