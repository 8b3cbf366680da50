"""The supervisor restarts what crashes, stops in order, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import env
from gateway.runtime import child, logs, running_children
from gateway.runtime.child import Program
from gateway.runtime.data_folders import CLONE, Places
from gateway.runtime.supervisor import Service, Stage, Supervisor
from tests.fakes.small_disk import SmallDisk, small_disk
from tests.patience import PATIENCE_S, eventually


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and running_children.entry_for("", pid).started_ticks > 0


def shell(script: str, tmp_path: Path, *, stop_timeout_s: float = 10.0) -> Program:
    return Program(
        command=("/bin/sh", "-c", script),
        environment={"PATH": env.inherited()["PATH"]},
        folder=tmp_path,
        stop_timeout_s=stop_timeout_s,
    )


def service(name: str, program: Program, *, stage: Stage = Stage.CONSOLE) -> Service:
    return Service(name=name, stage=stage, program=program)


@pytest.fixture
def where(tmp_path: Path) -> Places:
    return Places(root=tmp_path, sockets=tmp_path / "run")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def supervisor(where: Places, clock: Clock, reports: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(where, clock=clock, report=reports.append)
    yield supervisor
    supervisor.stop_all(progress=reports.append)


def test_a_crashed_child_is_started_again_after_growing_pauses(
    supervisor: Supervisor, where: Places, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    # given
    started = tmp_path / "started"
    process = supervisor.start(service("flaky", shell(f"echo x >> {started}; exit 3", tmp_path)))
    process.wait(PATIENCE_S)

    # when
    for starts in range(1, 9):
        eventually(lambda: started.read_text().count("x") == starts)  # noqa: B023
        eventually(lambda: (supervisor.tick(), len(reports) == starts)[1])  # noqa: B023
        clock.now_s += 30.0
        supervisor.tick()

    # then
    pauses = [report.rpartition(" in ")[2] for report in reports]
    assert pauses == ["0.5 s", "1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s"]


def test_a_child_is_not_started_again_before_its_pause_is_over(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    # given
    process = supervisor.start(service("flaky", shell("exit 3", tmp_path)))
    process.wait(PATIENCE_S)
    supervisor.tick()

    # when
    clock.now_s += 0.4
    supervisor.tick()
    supervisor.tick()

    # then
    assert reports == ["flaky ended with 3; starting it again in 0.5 s"]


def test_a_child_that_was_stable_begins_with_the_first_pause(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    # given two crashes in a row, then a long life
    gate = tmp_path / "gate"
    script = f"test -e {gate} && exec sleep 1000; exit 3"
    process = supervisor.start(service("flaky", shell(script, tmp_path)))
    process.wait(PATIENCE_S)
    supervisor.tick()
    gate.touch()
    clock.now_s += 1.0
    supervisor.tick()
    clock.now_s += 61.0
    (entry,) = running_children.noted(Places(root=tmp_path, sockets=tmp_path))

    # when
    os.kill(entry.pid, signal.SIGKILL)
    eventually(lambda: (supervisor.tick(), len(reports) == 2)[1])

    # then
    assert reports[1] == "flaky ended with -9; starting it again in 0.5 s"


def test_a_one_time_step_is_not_started_again(
    supervisor: Supervisor, reports: list[str], tmp_path: Path
) -> None:
    # given
    step = Service(name="step", stage=Stage.WORKER, program=shell("exit 7", tmp_path), once=True)
    process = supervisor.start(step)
    assert supervisor.exit_code("step") is None

    # when
    process.wait(PATIENCE_S)
    supervisor.tick()

    # then
    assert supervisor.exit_code("step") == 7
    assert reports == []


def test_stages_stop_one_after_the_other(supervisor: Supervisor, tmp_path: Path) -> None:
    # given
    order = tmp_path / "order"
    for stage in reversed(Stage):
        script = (
            f"trap 'echo {stage.name} >> {order}; exit' TERM; touch {tmp_path}/{stage.name};"
            " while :; do sleep 0.02; done"
        )
        supervisor.start(service(stage.name, shell(script, tmp_path), stage=stage))
    eventually(lambda: all((tmp_path / stage.name).exists() for stage in Stage))

    # when
    supervisor.stop_all(progress=lambda line: None)

    # then
    assert order.read_text().split() == [
        "DATA_PLANE",
        "CELERY",
        "CONSOLE",
        "WORKER",
        "REDIS",
        "POSTGRES",
    ]


def test_a_child_that_ignores_the_request_is_killed(
    supervisor: Supervisor, reports: list[str], tmp_path: Path
) -> None:
    # given
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 0.02; done"
    process = supervisor.start(service("deaf", shell(script, tmp_path, stop_timeout_s=0.2)))
    eventually(ready.exists)

    # when
    supervisor.stop_all(progress=lambda line: None)

    # then
    assert process.returncode == -signal.SIGKILL
    assert reports == ["deaf did not stop in time and was killed"]


def test_grandchildren_go_with_their_parent(supervisor: Supervisor, tmp_path: Path) -> None:
    # given
    note = tmp_path / "grandchild"
    script = f"sleep 1000 & echo $! > {note}.new; mv {note}.new {note}; exit 0"
    supervisor.start(
        Service(name="parent", stage=Stage.CONSOLE, program=shell(script, tmp_path), once=True)
    )
    eventually(note.exists)
    grandchild = int(note.read_text())

    # when
    eventually(lambda: (supervisor.tick(), supervisor.exit_code("parent") == 0)[1])

    # then
    eventually(lambda: not exists(grandchild))


def test_a_child_started_in_the_background_still_hears_ctrl_c(tmp_path: Path) -> None:
    # given a parent with SIGINT ignored, as a shell's background jobs have it
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (tmp_path / "log").open("wb") as log:
            process = child.spawn(shell("exec sleep 1000", tmp_path), log=log)
    finally:
        signal.signal(signal.SIGINT, before)

    # when
    process.send_signal(signal.SIGINT)

    # then
    assert process.wait(PATIENCE_S) == -signal.SIGINT


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    # given a process that starts a child as the supervisor does
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom gateway.runtime import child\n"
        "here = Path(sys.argv[1])\n"
        "program = child.Program(command=('sleep', '1000'), environment={'PATH': sys.argv[2]},"
        " folder=here)\n"
        "process = child.spawn(program, log=(here / 'log').open('wb'))\n"
        "(here / 'pid.new').write_text(str(process.pid))\n"
        "(here / 'pid.new').rename(here / 'pid')\n"
        "time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), env.inherited()["PATH"]]
    parent = subprocess.Popen(command, cwd=CLONE)
    eventually((tmp_path / "pid").exists)
    orphan = int((tmp_path / "pid").read_text())

    # when
    parent.kill()
    parent.wait(PATIENCE_S)

    # then
    eventually(lambda: not exists(orphan))


@pytest.fixture
def leftover(where: Places) -> Iterator["subprocess.Popen[bytes]"]:
    """A child that its supervisor did not live to stop."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait(PATIENCE_S)


def test_leftovers_of_an_earlier_run_are_ended(
    where: Places, leftover: "subprocess.Popen[bytes]"
) -> None:
    # given
    running_children.note(where, [running_children.entry_for("console", leftover.pid)])

    # when
    ended = running_children.sweep(where)

    # then
    assert ended == ["console"]
    assert leftover.wait(PATIENCE_S) == -signal.SIGTERM


def test_a_pid_with_a_new_owner_is_left_alone(
    where: Places, leftover: "subprocess.Popen[bytes]"
) -> None:
    # given a list that means an earlier owner of the same pid
    earlier = running_children.entry_for("console", leftover.pid).started_ticks - 1
    running_children.note(where, [running_children.Entry("console", leftover.pid, earlier)])

    # when
    ended = running_children.sweep(where)

    # then
    assert ended == []
    assert leftover.poll() is None


def test_pids_from_before_a_reboot_are_left_alone(
    where: Places, leftover: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    running_children.note(where, [running_children.entry_for("console", leftover.pid)])
    other_boot = where.root / "boot_id"
    other_boot.write_text("another")
    monkeypatch.setattr(running_children, "BOOT_ID", other_boot)

    # when / then
    assert running_children.sweep(where) == []
    assert leftover.poll() is None


def test_only_one_supervisor_runs_per_installation(where: Places) -> None:
    # given
    first, second = running_children.Lock(where), running_children.Lock(where)
    first.take()

    # when / then
    with pytest.raises(
        running_children.AlreadyRunning, match=f"supervisor {os.getpid()}.*make down"
    ):
        second.take()
    assert not second.is_free()
    first.close()
    assert second.is_free()
    second.close()


def test_logs_stay_below_their_limit(tmp_path: Path) -> None:
    # given a child that goes on writing while its log is cut
    with logs.open_log(tmp_path, "chatty") as log:
        log.write(b"a" * 1000)

        # when
        logs.trim(tmp_path, bytes_max=500)
        log.write(b"b" * 10)

    # then
    assert logs.path_of(tmp_path, "chatty").read_bytes() == b"b" * 10
    assert (tmp_path / "chatty.log.1").stat().st_size == 1000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=4) as made:
        yield made


def test_a_full_disk_ends_neither_the_watch_nor_the_children(
    disk: SmallDisk, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    # given: notes and logs on a disk, children elsewhere
    started = tmp_path / "started"
    started.touch()
    where = Places(root=disk.path, sockets=tmp_path)
    supervisor = Supervisor(where, clock=clock, report=reports.append)
    steady = supervisor.start(service("steady", shell("exec sleep 1000", tmp_path)))
    supervisor.start(service("chatty", shell(f"echo x >> {started}; echo said; exit 3", tmp_path)))
    try:
        # when
        disk.fill()
        for starts in range(1, 4):
            eventually(lambda: started.read_text().count("x") == starts)  # noqa: B023
            eventually(lambda: (supervisor.tick(), _ended(reports) == starts)[1])  # noqa: B023
            clock.now_s += 30.0
            supervisor.tick()
        # then: it was started again after growing pauses, and the other one lives
        ends = [report for report in reports if "ended with 3" in report]
        assert [end.rpartition(" in ")[2] for end in ends[:3]] == ["0.5 s", "1 s", "2 s"]
        assert all("a disk is full" in end for end in ends)
        assert steady.poll() is None
        assert sum("the list of children cannot be written" in line for line in reports) == 1
        # and: with room again the list is true
        disk.free()
        clock.now_s += 2.0
        supervisor.tick()
        noted = {entry.name: entry.pid for entry in running_children.noted(where)}
        assert noted["steady"] == steady.pid
    finally:
        supervisor.stop_all(progress=reports.append)


def _ended(reports: list[str]) -> int:
    return sum("ended with 3" in report for report in reports)


def test_who_ended_on_a_full_disk_is_started_as_soon_as_there_is_room(
    disk: SmallDisk, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    # given: one that needs room, and has crashed often
    where = Places(root=disk.path, sockets=tmp_path)
    supervisor = Supervisor(where, clock=clock, report=reports.append)
    script = f"head -c 100000 /dev/zero > {disk.path}/needed && exec sleep 1000; exit 3"
    disk.fill()
    supervisor.start(service("needy", shell(script, tmp_path)))
    try:
        for crashes in range(1, 8):
            eventually(lambda: (supervisor.tick(), _ended(reports) == crashes)[1])  # noqa: B023
            clock.now_s += 30.0 if crashes < 7 else 0.0
        assert reports[-1].endswith("starting it again in 30 s")
        # when: not a second has passed
        disk.free()
        supervisor.tick()
        # then
        eventually(lambda: (disk.path / "needed").exists())
        assert _ended(reports) == 7
    finally:
        supervisor.stop_all(progress=reports.append)


def test_what_cannot_be_started_now_is_tried_again(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    # given: its folder is gone when it is to be started again
    folder = tmp_path / "folder"
    folder.mkdir()
    process = supervisor.start(service("odd", shell("exit 3", folder)))
    process.wait(PATIENCE_S)
    supervisor.tick()
    folder.rmdir()
    # when
    clock.now_s += 30.0
    supervisor.tick()
    # then
    assert "odd could not be started: " in reports[-1]
    assert reports[-1].endswith("starting it again in 1 s")
    folder.mkdir()
    clock.now_s += 30.0
    supervisor.tick()
    eventually(lambda: (supervisor.tick(), "odd ended with 3" in reports[-1])[1])


def test_logs_on_a_full_disk_are_cut_all_the_same(disk: SmallDisk) -> None:
    # given
    (disk.path / "chatty.log").write_bytes(b"a" * 1_000_000)
    disk.fill()
    # when
    logs.trim(disk.path, bytes_max=500)
    # then
    assert (disk.path / "chatty.log").stat().st_size == 0
    assert not (disk.path / "chatty.log.1").exists()
