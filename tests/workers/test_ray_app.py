"""Needs Ray Serve, which is not installed with the worker: skipped without it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.workers.servers import until

pytest.importorskip("ray.serve")

ROOT = Path(__file__).parents[2]
PORT = 18_466


@pytest.fixture
def cluster(tiny_model_dir: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "workers.ray_app", "--model-dir", str(tiny_model_dir)]
    command += ["--model-name", "tiny", "--port", str(PORT), "--replicas", "2", "--no-bearer"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("serving on"):
                break
        yield process
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def replicas(process: subprocess.Popen) -> set[int]:
    found = set()
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("ServeReplica" in part for part in child.cmdline()):
                found.add(child.pid)
    return found


def answer() -> int:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
    return httpx.post(url, json=body, timeout=30, trust_env=False).status_code


def test_a_killed_replica_is_replaced_while_the_others_serve(cluster: subprocess.Popen):
    # given
    assert [answer() for _ in range(4)] == [200] * 4
    victim, survivor = sorted(replicas(cluster))

    # when
    os.kill(victim, signal.SIGKILL)

    # then: between calls nothing is lost, and a new one takes its place
    assert [answer() for _ in range(6)].count(200) >= 5
    for _ in range(6):
        with contextlib.suppress(AssertionError):
            until(lambda: len(replicas(cluster) - {victim}) == 2)
            break
    assert survivor in replicas(cluster)
    assert len(replicas(cluster) - {victim}) == 2
    assert [answer() for _ in range(4)] == [200] * 4
