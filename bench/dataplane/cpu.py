"""CPU time and memory of a process tree, read from /proc.

The unit of user and system time is the kernel's clock tick (a hundredth of a second), so windows
must be seconds long for a figure of a percent. Children that ended are not counted.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class CpuTime:
    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s

    def __sub__(self, earlier: "CpuTime") -> "CpuTime":
        return CpuTime(self.user_s - earlier.user_s, self.system_s - earlier.system_s)


def tree_of(pid: int) -> list[int]:
    """The process and its descendants that live now."""
    found = [pid]
    for parent in found:
        for task in (PROC / str(parent) / "task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def cpu_of(pids: Iterable[int]) -> CpuTime:
    """User and system time of all threads of these processes since each began."""
    user = system = 0
    for pid in pids:
        # The name in parentheses may hold blanks, so fields are counted from behind it.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return CpuTime(user / TICKS_PER_S, system / TICKS_PER_S)


def resident_mb(pid: int) -> float:
    """Resident memory of one process, shared pages included."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def busy_s(core: int) -> float:
    """How long this core has been busy with anything, time stolen by the host included."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, soft_irq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + soft_irq + steal) / TICKS_PER_S
    return 0.0
