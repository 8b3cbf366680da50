"""The bench's own tools: a figure is worth what its mock, its generator and its clock are worth."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from bench.dataplane import asyncio_load, bed, cpu, report, rounds
from bench.dataplane.shapes import EVENTS_PER_STREAM, SHAPES, Count
from gateway.runtime.child import Program

WHOLE, STREAM_16, _ = SHAPES
SETTING = report.Setting(
    day=date(2026, 1, 2),
    rounds=3,
    seconds=2,
    generator="wrk",
    mock="C",
    cores_apart=True,
    direct_per_second=1.0,
    metered_requests=3000,
    usage_events=3003,
    redis_us_per_request=9.0,
    resident_mb=(("ours", 80.0),),
)


@pytest.fixture
def bench_bed(tmp_path: Path) -> Iterator[bed.Bed]:
    with bed.Bed(tmp_path) as opened:
        yield opened


def start_python_mock(opened: bed.Bed, *, interval_us: int = 0) -> int:
    port = bed.free_port()
    module = [sys.executable, "-m", "bench.dataplane.mock.server"]
    opened.start(
        "python-mock",
        [*module, str(port), "50", str(interval_us)],
        core=None,
        environment=bed.child_environment(),
        port=port,
    )
    return port


def start_c_mock(opened: bed.Bed) -> int:
    if shutil.which("gcc") is None:
        pytest.skip("the C mock needs gcc")
    port, kind = bed.start_mock(opened)
    assert kind == "C"
    return port


def ask(port: int, body: str) -> bytes:
    request = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request.encode())
        while not (received.endswith(b"}") or received.endswith(b"0\r\n\r\n")):
            received += connection.recv(65536)
    return received


@pytest.mark.parametrize("body", [WHOLE.body, STREAM_16.body])
def test_both_mocks_answer_the_same_tokens(bench_bed: bed.Bed, body: str) -> None:
    # given
    ports = (start_python_mock(bench_bed), start_c_mock(bench_bed))

    # when
    in_python, in_c = (ask(port, body) for port in ports)

    # then
    assert in_python.count(b'"content":" harbour"') == in_c.count(b'"content":" harbour"')
    assert in_python.partition(b"\r\n\r\n")[0] == in_c.partition(b"\r\n\r\n")[0]


def test_c_mock_streams_every_event_and_terminates(bench_bed: bed.Bed) -> None:
    # when
    answer = ask(start_c_mock(bench_bed), STREAM_16.body)

    # then
    assert answer.count(b"data: ") == EVENTS_PER_STREAM
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_c_mock_survives_a_client_that_leaves_in_the_middle(bench_bed: bed.Bed) -> None:
    # given
    port = start_c_mock(bench_bed)
    body = STREAM_16.body
    request = f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request.encode())
        connection.recv(100)

    # when
    answer = ask(port, body)

    # then
    assert answer.count(b"data: ") == EVENTS_PER_STREAM


@pytest.mark.parametrize("shape", [WHOLE, STREAM_16])
def test_own_generator_counts_complete_answers(bench_bed: bed.Bed, shape: rounds.Shape) -> None:
    # given
    port = start_python_mock(bench_bed)

    # when
    counted = asyncio.run(asyncio_load.measure(shape, port=port, api_key="none", seconds=0.5))

    # then
    assert counted["requests"] > shape.connections
    assert counted["errors"] == 0


def test_cpu_of_a_tree_includes_a_busy_child(bench_bed: bed.Bed) -> None:
    # given
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"
    program = f"exec {sys.executable} -c '{burn}' & wait"
    pid = bench_bed.run(
        "shell",
        Program(
            command=("sh", "-c", program), environment=bed.child_environment(), folder=bed.PROJECT
        ),
    ).pid

    # when
    while cpu.cpu_of(cpu.tree_of(pid)).total_s < 0.29:
        os.sched_yield()

    # then
    assert len(cpu.tree_of(pid)) == 2
    assert cpu.cpu_of([pid]).total_s < 0.1


def test_run_divides_cpu_time_by_what_was_answered() -> None:
    # given
    count = Count(requests=1000, errors=0, seconds=2.0, p50_us=1.0, p99_us=2.0)
    run = rounds.Run("x", STREAM_16, 1, count, cpu.CpuTime(0.2, 0.33), 1.06)

    # then
    assert run.us_per_request == pytest.approx(530)
    assert run.us_per_event == pytest.approx(10)
    assert run.core_share == pytest.approx(0.5)
    assert run.per_second == 500


def test_report_replaces_only_what_stands_between_the_markers(tmp_path: Path) -> None:
    # given
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")

    # when
    report.write("new\n", page)

    # then
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


def test_report_pairs_the_rounds_of_two_subjects() -> None:
    # given
    subjects = [rounds.Subject("ours", 1, 1), rounds.Subject("nginx", 2, 2)]
    count = Count(requests=1000, errors=0, seconds=2.0, p50_us=1.0, p99_us=2.0)
    runs = [
        rounds.Run(name, WHOLE, number, count, cpu.CpuTime(seconds, 0.0), 1.0)
        for number, costs in ((1, (0.2, 0.1)), (2, (0.6, 0.2)), (3, (0.4, 0.1)))
        for name, seconds in zip(("ours", "nginx"), costs, strict=True)
    ]

    # when
    text = report.render(runs, subjects, SETTING)

    # then
    row = "| µs per request, not streamed, 32 connections | 400.0 (200.0 to 600.0) | "
    assert row + "100.0 (100.0 to 200.0) | 3.0x (2.0 to 4.0) |" in text


def test_nothing_of_the_bench_is_left_running(tmp_path: Path) -> None:
    # when
    with bed.Bed(tmp_path) as opened:
        port = start_python_mock(opened)

    # then
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_report_says_when_others_used_the_core() -> None:
    # given
    subjects = [rounds.Subject("ours", 1, 1)]
    count = Count(requests=1000, errors=0, seconds=2.0, p50_us=1.0, p99_us=2.0)
    quiet, noisy = (
        rounds.Run("ours", WHOLE, 1, count, cpu.CpuTime(0.5, 0.5), 2.0, core_busy_s=busy_s)
        for busy_s in (1.02, 1.8)
    )

    # when
    texts = [report.render([run], subjects, SETTING) for run in (quiet, noisy)]

    # then
    assert "The machine was not quiet" not in texts[0]
    assert "other processes used 40% of the subjects' core" in texts[1]
