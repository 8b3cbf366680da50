import asyncio
import contextlib
import json
import shutil
from pathlib import Path

import pytest

from tests.workers.engines import make_engine, request
from tests.workers.servers import Console, running_console, until
from workers import quality
from workers.engine.gaps import Gap, GapFigures
from workers.quality import Quality, SliceQuality
from workers.server.bridge import EngineBridge
from workers.server.calibration import Calibration
from workers.server.registration import PAUSE_MAX_S, Identity, Registration

REGISTER, HEARTBEAT = "/api/workers/register", "/api/workers/heartbeat"
CALIBRATION = Calibration(
    input_tokens_per_s=400.0,
    output_tokens_per_s=80.0,
    input_time_share=0.4,
    seconds=10.0,
    sample=24,
    mix="test",
    drafted=0,
    accepted=0,
    input_tokens=2000,
    output_tokens=900,
    steps=600,
    busy_seconds=9.5,
    draft_seconds=0.19,
    dispatch_seconds=0.0,
    gaps=GapFigures(alone=Gap(12.5, 60)),
)


class Pauses:
    """Replaces sleeping: notes how long it would have been and goes on."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0.001)


def identity(url: str) -> Identity:
    return Identity(
        gateway_url=url,
        worker_key="wk-1",
        name="here:8101",
        base_url="http://127.0.0.1:8101",
        bearer="secret",
        model="smollm2-135m-instruct",
        usd_per_hour="0.10",
        usd_per_hour_source="assumed",
    )


async def register_until(engine, url: str, condition, pauses: Pauses) -> None:
    """Run a registration against the address until the condition holds."""
    bridge = EngineBridge(engine)
    bridge.start()
    task = asyncio.create_task(Registration(identity(url), bridge, CALIBRATION, sleep=pauses).run())
    try:
        await asyncio.to_thread(until, condition)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(bridge.stop, 5)


def play(model_dir: Path, console: Console, condition, **limits: object) -> Pauses:
    pauses = Pauses()
    with running_console(console) as url:
        engine = make_engine(model_dir, **limits)
        asyncio.run(register_until(engine, url, condition, pauses))
    return pauses


def test_a_worker_says_who_it_is_and_what_it_can(tiny_model_dir: Path):
    # given
    console = Console()

    # when
    play(tiny_model_dir, console, lambda: console.bodies(REGISTER), speculation="ngram")

    # then
    path, authorization, body = console.calls[0]
    assert (path, authorization) == (REGISTER, "Bearer wk-1")
    assert body["engine"].pop("torch")
    assert body["engine"].pop("linear")
    assert body["engine"].pop("version")
    assert body["engine"].pop("energy") in ("rapl", "unknown")
    assert body["costs"].pop("draft_bytes") >= 0
    assert body["costs"].pop("weight_bytes") == body["costs"].pop("full_weight_bytes") > 0
    assert body == {
        "name": "here:8101",
        "base_url": "http://127.0.0.1:8101",
        "bearer": "secret",
        "model": "smollm2-135m-instruct",
        "context_length": 512,
        "max_output_tokens": 4096,
        "techniques": [
            "paged-kv",
            "prefix-cache",
            "continuous-batching",
            "chunked-prefill",
            "ngram-speculation",
        ],
        "features": ["json_schema"],
        "usd_per_hour": "0.10",
        "usd_per_hour_source": "assumed",
        "calibration": {
            "input_tokens_per_s": 400.0,
            "output_tokens_per_s": 80.0,
            "input_time_share": 0.4,
            "seconds": 10.0,
            "sample": 24,
            "mix": "test",
            "output_tokens": 900,
        },
        "costs": {
            "calibrated": {
                "steps": 600,
                "output_tokens": 900,
                "busy_seconds": 9.5,
                "draft_seconds": 0.19,
                "dispatch_seconds": 0.0,
            },
            "gaps": {"alone": {"p95_ms": 12.5, "n": 60}},
        },
        "engine": {"dtype": "float32", "threads": 1, "device": "cpu"},
    }


def test_a_worker_with_int8_says_so(tiny_model_dir: Path, tmp_path: Path):
    # given
    console = Console()
    limits = {"quantisation": "int8", "block_size": 16, "kernel_dir": tmp_path}

    # when
    play(tiny_model_dir, console, lambda: console.bodies(REGISTER), **limits)

    # then: it runs as fp32, and says that, where the kernels cannot be built
    [body] = console.bodies(REGISTER)
    is_int8 = body["engine"]["linear"].startswith("int8")
    assert ("int8" in body["techniques"]) is is_int8
    assert body["engine"]["dtype"] == ("int8" if is_int8 else "float32")
    # and its weights take less than in fp32, counted as they lie in memory
    costs = body["costs"]
    assert (costs["weight_bytes"] < 0.4 * costs["full_weight_bytes"]) is is_int8


def test_a_worker_tells_what_its_setting_was_found_to_lose(tiny_model_dir: Path, tmp_path: Path):
    # given
    model_dir = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    worst = SliceQuality(
        slice="code",
        kind="text",
        n=100,
        full=10.0,
        setting=11.0,
        loss=0.1,
        loss_low=0.05,
        loss_high=0.15,
        disagreement=0.02,
        disagreement_high=0.03,
    )
    setting = make_engine(model_dir).model.linear_kind
    quality.store(model_dir, Quality(setting=setting, reference="exact", slices=[worst]))
    console = Console()

    # when
    play(model_dir, console, lambda: console.bodies(REGISTER))

    # then
    assert console.bodies(REGISTER)[0]["engine"]["quality"] == {
        "brittle": True,
        "worst_slice": "code",
        "loss_percent": 10.0,
        "disagreement_percent": 2.0,
        "measure": "perplexity",
        "sample": 100,
    }


def test_heartbeats_carry_load_and_totals_at_the_period_the_console_set(tiny_model_dir: Path):
    # given
    console = Console()

    # when
    pauses = play(tiny_model_dir, console, lambda: len(console.bodies(HEARTBEAT)) > 2)

    # then
    body = console.bodies(HEARTBEAT)[0]
    assert (body["worker_id"], body["running"], body["waiting"]) == (7, 0, 0)
    assert body["kv_cache_usage"] == 0.0
    assert body["gaps"] == {}
    assert set(body["totals"]) == {
        "input_tokens_uncached",
        "input_tokens_cached",
        "output_tokens",
        "input_seconds",
        "output_seconds",
        "drafted",
        "accepted",
        "steps",
        "audits_same",
        "audits_tie",
        "audits_different",
        "audit_seconds",
        "draft_seconds",
        "dispatch_seconds",
        "joules",
        "uptime_s",
    }
    assert set(pauses.seconds) == {5.0}


def test_a_busy_worker_reports_its_load(tiny_model_dir: Path):
    # given: one request that stands still in its seat, one in the queue
    engine = make_engine(tiny_model_dir, max_running_requests=1)
    for name in "ab":
        engine.add(request(name, list(range(20, 40))))
    engine.step()
    engine.step = list
    console = Console()

    # when
    with running_console(console) as url:
        condition = lambda: console.bodies(HEARTBEAT)  # noqa: E731
        asyncio.run(register_until(engine, url, condition, Pauses()))

    # then
    body = console.bodies(HEARTBEAT)[0]
    assert (body["running"], body["waiting"]) == (1, 1)
    assert body["kv_cache_usage"] == round(3 / 95, 4)


def test_a_console_that_is_down_is_tried_again_with_growing_bounded_pauses(tiny_model_dir: Path):
    # given
    console = Console()
    console.answers[REGISTER] = [500] * 3 + [401] + [503] * 5

    # when
    pauses = play(tiny_model_dir, console, lambda: console.bodies(HEARTBEAT))

    # then
    waits = pauses.seconds[:9]
    assert len(console.bodies(REGISTER)) == 10
    assert 0.8 <= waits[0] <= 1.2
    assert 1.6 <= waits[1] <= 2.4
    assert max(waits) <= 1.2 * PAUSE_MAX_S


def test_a_console_that_is_not_there_is_tried_again(tiny_model_dir: Path):
    # given: an address on which nobody listens
    with running_console(Console()) as url:
        pass
    pauses = Pauses()

    # when
    engine = make_engine(tiny_model_dir)
    asyncio.run(register_until(engine, url, lambda: len(pauses.seconds) > 3, pauses))

    # then
    assert len(pauses.seconds) > 3


def test_a_worker_the_console_forgot_registers_again(tiny_model_dir: Path):
    # given
    console = Console()
    console.answers[HEARTBEAT] = [200, 404]

    # when
    play(tiny_model_dir, console, lambda: len(console.bodies(REGISTER)) == 2)

    # then
    assert [path for path, _, _ in console.calls[:4]] == [REGISTER, HEARTBEAT, HEARTBEAT, REGISTER]


def test_a_lost_heartbeat_is_not_a_lost_worker(tiny_model_dir: Path):
    # given
    console = Console()
    console.answers[HEARTBEAT] = [500, 503]

    # when
    play(tiny_model_dir, console, lambda: len(console.bodies(HEARTBEAT)) > 3)

    # then
    assert len(console.bodies(REGISTER)) == 1


def test_a_redirect_never_carries_the_worker_key_elsewhere(tiny_model_dir: Path):
    # given
    console = Console()
    console.answers[REGISTER] = [307]

    # when
    pauses = play(tiny_model_dir, console, lambda: console.bodies(HEARTBEAT))

    # then: it counts as a failure, and the next try goes to the console again
    assert len(console.bodies(REGISTER)) == 2
    assert 0.8 <= pauses.seconds[0] <= 1.2


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"{}",
        b'{"worker_id": 1}',
        b'{"worker_id": "1", "heartbeat_seconds": 5}',
        b'{"worker_id": null, "heartbeat_seconds": 5}',
        b'{"worker_id": 1, "heartbeat_seconds": NaN}',
        b'{"worker_id": 1, "heartbeat_seconds": 1e999}',
        b'{"worker_id": 1, "heartbeat_seconds": true}',
        b"[" * 100_000,
        b"\xff",
        b"nonsense",
    ],
    ids=lambda reply: reply[:40].decode("latin-1") or "nothing",
)
def test_a_reply_that_makes_no_sense_is_a_failure(tiny_model_dir: Path, reply: bytes):
    # given
    console = Console()
    console.replies = [reply]

    # when
    play(tiny_model_dir, console, lambda: console.bodies(HEARTBEAT))

    # then
    assert len(console.bodies(REGISTER)) == 2
    assert console.bodies(HEARTBEAT)[0]["worker_id"] == 7


@pytest.mark.parametrize(("told", "kept"), [(0.0, 1.0), (1e9, 60.0), (-3, 1.0)])
def test_an_absurd_heartbeat_period_is_bounded(tiny_model_dir: Path, told: float, kept: float):
    # given
    console = Console()
    console.replies = [json.dumps({"worker_id": 7, "heartbeat_seconds": told}).encode()]

    # when
    pauses = play(tiny_model_dir, console, lambda: len(console.bodies(HEARTBEAT)) > 1)

    # then
    assert set(pauses.seconds) == {kept}
