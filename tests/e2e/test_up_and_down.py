"""`make up` keeps data between runs, and leaves no process behind however it ends."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.runtime import running_children
from gateway.runtime.data_folders import Places
from tests.e2e.stack import Stack
from tests.patience import eventually


class Process(NamedTuple):
    """One that runs; its start tells it from a later owner of its pid."""

    pid: int
    started: int
    session: int


def running() -> set[Process]:
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {process for pid in pids if (process := process_of(pid))}


def process_of(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else Process(pid, int(fields[19]), int(fields[3]))


def processes_of(stack: Stack) -> set[Process]:
    """Every process that belongs to a child of the supervisor, grandchildren included."""
    leaders = set(stack.children().values())
    return {process for process in running() if process.session in leaders}


@pytest.fixture
def stack() -> Iterator[Stack]:
    stack = Stack(TOKENHOUSE_WORKERS="0")
    yield stack
    stack.close()


def supervisor(stack: Stack) -> int:
    return int((stack.root / "supervisor.lock").read_text())


def start_again(stack: Stack) -> None:
    stack.log.unlink()  # What the first run said must not be taken for the second's.
    stack.start()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_leave_no_process_and_keep_the_data(
    stack: Stack, ending: signal.Signals
) -> None:
    # given
    stack.start()
    demo = stack.demo
    tenants = stack.sql("SELECT id, slug FROM billing_tenant ORDER BY id")
    with stack.redis() as redis:
        redis.set("noted", "before")
    before = processes_of(stack)
    assert len(before) >= len(stack.children()) == 7

    # when
    os.kill(supervisor(stack), ending)
    code = stack.wait()

    # then
    assert code == 0
    assert before & running() == set()
    assert running_children.noted(Places(root=stack.root, sockets=stack.root)) == []

    # and when
    start_again(stack)

    # then
    assert stack.sql("SELECT id, slug FROM billing_tenant ORDER BY id") == tenants
    assert stack.demo == demo
    with stack.redis() as redis:
        assert redis.get("noted") == b"before"


def test_a_killed_supervisor_takes_its_children_along(stack: Stack) -> None:
    # given
    stack.start()
    before = processes_of(stack)

    # when
    os.kill(supervisor(stack), signal.SIGKILL)
    stack.wait()

    # then
    eventually(lambda: not before & running())

    # and the next one starts
    start_again(stack)
    assert len(stack.children()) == 7


def test_a_second_start_beside_a_running_one_is_refused(stack: Stack) -> None:
    # given
    stack.start()
    first = supervisor(stack)

    # when
    second = stack.run_beside()

    # then
    assert second.returncode == 1
    assert second.stderr == (
        f"tokenhouse: this clone is already up (supervisor {first}); stop it with `make down`\n"
    )
    assert set(stack.children()) >= {"postgres", "redis", "dataplane", "console"}


def test_a_crashed_console_is_started_again(stack: Stack) -> None:
    # given
    stack.start()
    before = stack.children()["console"]

    # when
    stack.kill("console")

    # then
    eventually(lambda: stack.children().get("console", before) != before)
    stack.eventually(lambda: stack.answers("/login/"))
