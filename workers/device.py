"""Where tensors live and in what precision, and how a step's numbers get there.

The decoder asks for no device: its weights are read onto one (`PlacedWeights`), and what it makes
follows them. Plans stay lists on the host; their numbers travel together (`send`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from workers.config import DType
from workers.memory import available_bytes
from workers.weights.checkpoint import ReadWeights

CPU = torch.device("cpu")
# Seconds that only grow.
Clock = Callable[[], float]
# Compute capabilities, before the point.
AMPERE, HOPPER = 8, 9


class DeviceUnavailable(RuntimeError):
    """The machine, or what is installed on it, has not what the configuration asks for."""


@dataclass(frozen=True, slots=True)
class Placement:
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str, dtype: DType) -> "Placement":
        """The place that these settings name here. Raises `DeviceUnavailable`."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(device)
        if place.type == "cuda":
            found = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if (place.index or 0) >= found:
                raise DeviceUnavailable(
                    f"device {device} is not here: torch {torch.__version__} finds {found} GPUs"
                )
            place = torch.device("cuda", place.index or 0)
        if dtype == "auto":
            dtype = "bfloat16" if place.type == "cuda" else "float32"
        return cls(place, torch.bfloat16 if dtype == "bfloat16" else torch.float32)


class PlacedWeights:
    """Weights that arrive on the device, rounded on the host: half the bytes cross."""

    def __init__(self, read: ReadWeights, place: Placement) -> None:
        self._read, self._place = read, place
        # A tensor that is read twice, as tied embeddings are, takes its place there once.
        self._alive: WeakValueDictionary[str, Tensor] = WeakValueDictionary()

    def __contains__(self, name: str) -> bool:
        return name in self._read

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        found = self._alive.get(name)
        if found is None:
            found = self._read(name, shape).to(self._place.dtype).to(self._place.device)
            self._alive[name] = found
        return found


def send(lists: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, ...]:
    """Each list as a tensor of int64 on the device; all of them in one transfer.

    To a GPU it starts from pinned memory and does not wait. torch keeps that memory until the copy
    is done.
    """
    flat = torch.tensor(
        list(chain.from_iterable(lists)), dtype=torch.int64, pin_memory=device.type == "cuda"
    )
    return torch.split(flat.to(device, non_blocking=True), [len(part) for part in lists])


def board_name(device: torch.device) -> str:
    """What an energy meter knows the device by."""
    if device.type == "cpu":
        return "cpu"
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def synchronise(device: torch.device) -> None:
    """Wait for what was started there: a clock read earlier would only time its launch."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def work_clock(device: torch.device) -> Clock:
    """Seconds, for the time between two readings, of which the second follows a result.

    On a processor the thread's own: it spins while its team works, and what other programs take is
    not counted. A thread that waits for a GPU may sleep.
    """
    return time.thread_time if device.type == "cpu" else time.perf_counter


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken there, None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes() if device.type == "cpu" else None
