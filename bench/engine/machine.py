"""What the figures were measured on."""

import os
import platform
from pathlib import Path
from typing import Final

from workers.server.calibration import cpu_model

TELLING_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


def describe() -> str:
    """Processor, cores, instruction sets, memory, system and Python in one line."""
    return (
        f"{cpu_model()}, {os.cpu_count()} cores ({', '.join(cpu_flags())}), "
        f"{memory_gib():.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


def cpu_flags() -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = next((line.split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in TELLING_FLAGS if flag in found]


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
