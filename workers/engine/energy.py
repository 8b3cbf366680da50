"""Joules, read from the hardware's own counters or not at all.

A processor's package is read through Linux's powercap (RAPL), a GPU through NVML. Both count the
whole package or board, with whatever else runs on it, so the figure is an upper bound for the
engine. Where there is no counter, or no right to read it, the answer is "unknown", never a guess.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

try:
    import pynvml
except ImportError:
    pynvml = None

POWERCAP: Final = Path("/sys/class/powercap")

Source = Literal["rapl", "nvml", "unknown"]


@dataclass(slots=True)
class Counter:
    """A counter in joules that starts again at 0 after `range_j`, or never where that is None."""

    read: Callable[[], float]
    range_j: float | None
    last_j: float = field(init=False)
    total_j: float = 0.0

    def __post_init__(self) -> None:
        self.last_j = self.read()

    def advance(self) -> float:
        """Joules since the beginning; call it more often than the counter wraps."""
        now = self.read()
        step = now - self.last_j
        if step < 0:
            # A counter without a range that falls was reset: what it shows came since.
            step = now if self.range_j is None else step + self.range_j
        self.total_j += step
        self.last_j = now
        return self.total_j


class EnergyMeter:
    """Sums the counters of one device; `joules` is None where nothing can be read."""

    def __init__(self, source: Source, counters: list[Counter]) -> None:
        self.source: Source = source if counters else "unknown"
        self._counters = counters

    def restart(self) -> None:
        """Count from here on."""
        self.joules()
        for counter in self._counters:
            counter.total_j = 0.0

    def joules(self) -> float | None:
        """Since the beginning or the last restart; to be asked every few minutes at least."""
        if self.source == "unknown":
            return None
        try:
            return sum(counter.advance() for counter in self._counters)
        except (OSError, ValueError, ArithmeticError):
            # It could be read and cannot any more: from here on nothing is known.
            self.source = "unknown"
            return None


def meter_for(board: str, *, powercap: Path = POWERCAP) -> EnergyMeter:
    """The meter of "cpu", or of a GPU by its UUID: CUDA may number boards otherwise than NVML."""
    if board == "cpu":
        return EnergyMeter("rapl", _packages(powercap))
    return EnergyMeter("nvml", _board(board))


def _packages(powercap: Path) -> list[Counter]:
    """Counters of the whole packages; their parts (intel-rapl:0:1) are within them."""
    found = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") == 1:
            try:
                range_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
                found.append(Counter(_microjoules(zone / "energy_uj"), range_j))
            except (OSError, ValueError):
                # Since 2020 kernels let only root read it. A sum without one package is no sum.
                return []
    return found


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def _board(uuid: str) -> list[Counter]:
    if pynvml is None:
        return []
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

        def millijoules() -> float:
            try:
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            except pynvml.NVMLError as error:
                raise OSError(str(error)) from error

        return [Counter(millijoules, None)]
    except (pynvml.NVMLError, OSError):
        return []
