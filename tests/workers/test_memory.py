"""Blocks that memory cannot hold are refused with sizes, before anything is taken."""

from pathlib import Path

import pytest

from tests.workers.engines import make_engine
from workers import memory
from workers.memory import NotEnoughMemory, available_bytes, check_blocks


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine, and a container on it, of given bytes; None: no such limit."""

    def make(free: int | None, *, limit: int | None = None, used: int = 0, files: int = 0) -> None:
        if free is not None:
            (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {free // 1024} kB\n")
        (tmp_path / "memory.max").write_text("max\n" if limit is None else f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\nfile {files}\n")
        monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "CGROUP", tmp_path)

    return make


def test_the_narrower_of_machine_and_container_counts(machine):
    machine(8192)
    assert available_bytes() == 8192
    machine(8192, limit=5000, used=3000, files=1000)
    assert available_bytes() == 3000
    machine(2048, limit=5000)
    assert available_bytes() == 2048


def test_a_system_that_does_not_tell_refuses_nothing(machine):
    machine(None)
    assert available_bytes() is None
    check_blocks(10**12, block_bytes=10**6, block_size=16, available=available_bytes())


def test_blocks_that_fit_are_taken_and_one_more_is_not(machine):
    machine(10_240_000)
    check_blocks(10, block_bytes=1_024_000, block_size=16, available=available_bytes())
    wanted = (
        r"11 blocks of 16 tokens need 11 MB of memory, 10 MB are available; "
        r"at most 10 fit: set --kv-blocks"
    )
    with pytest.raises(NotEnoughMemory, match=wanted):
        check_blocks(11, block_bytes=1_024_000, block_size=16, available=available_bytes())


def test_not_even_one_block(machine):
    machine(1_024_000)
    with pytest.raises(NotEnoughMemory, match="not even one fits"):
        check_blocks(2, block_bytes=1_024_000, block_size=16, available=available_bytes())


@pytest.mark.parametrize("speculation", ["off", "ngram"])
def test_an_engine_of_too_many_blocks_does_not_start(tiny_model_dir: Path, speculation: str):
    with pytest.raises(NotEnoughMemory, match="1000000000 blocks of 8 tokens need 6,144,000 MB"):
        make_engine(tiny_model_dir, kv_blocks=1_000_000_000, speculation=speculation)
