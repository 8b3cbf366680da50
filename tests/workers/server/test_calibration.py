import time
from pathlib import Path

import pytest

from tests.workers.engines import make_engine, write_tiny_model
from workers.engine.engine import Engine
from workers.engine.gaps import GapFigures
from workers.server import calibration
from workers.server.calibration import calibrate, mix_prompts, stored_or_measured


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("calibrated"), context=1024)


def engine(model_dir: Path, **limits: object) -> Engine:
    return make_engine(model_dir, kv_blocks=700, token_budget=64, **limits)


def test_the_mix_is_fixed_and_repeats_nothing():
    assert mix_prompts() == mix_prompts()
    assert len(set(mix_prompts())) == len(mix_prompts())


def test_a_calibration_measures_and_leaves_no_trace(model_dir: Path):
    # given
    measured = engine(model_dir)

    # when
    result = calibrate(measured, clock=time.thread_time)

    # then
    assert result.sample > 0
    assert result.input_tokens > 1000
    assert result.output_tokens > 100
    assert 0.0 < result.input_time_share < 1.0
    assert result.input_tokens_per_s > 0
    # The price is made of engine time; hardly any of the hour may pass outside of it.
    busy_s = (
        result.input_tokens / result.input_tokens_per_s
        + result.output_tokens / result.output_tokens_per_s
    )
    assert 0.8 < busy_s / result.seconds <= 1.001
    assert result.steps == result.output_tokens
    assert (result.draft_seconds, result.dispatch_seconds) == (0.0, 0.0)
    alone, full = result.gaps.alone, result.gaps.full
    assert alone.n >= 63
    assert full.n > 20
    assert min(alone.p95_ms, full.p95_ms) > 0
    assert not measured.has_work
    assert measured.metrics.gaps.figures() == GapFigures()
    assert measured.metrics.totals.output_tokens == 0
    assert measured.pool.cached_blocks == 0


def test_both_modes_run_the_same_requests(model_dir: Path):
    plain, drafted = calibrate(engine(model_dir)), calibrate(engine(model_dir, speculation="ngram"))
    assert plain.mix == drafted.mix
    assert (plain.drafted, drafted.drafted > 0) == (0, True)
    assert 0.0 < drafted.draft_seconds < drafted.busy_seconds


def test_a_second_start_reads_what_the_first_measured(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # given
    lines: list[str] = []
    first = stored_or_measured(engine(model_dir), progress=lines.append)
    monkeypatch.setattr(calibration, "calibrate", None)

    # when
    second = stored_or_measured(engine(model_dir), progress=lines.append)

    # then
    assert second == first
    assert lines[-1].startswith("calibration of an earlier start")


def test_another_mode_or_a_spoilt_file_is_measured_anew(model_dir: Path, tmp_path: Path):
    # given
    lines: list[str] = []
    stored_or_measured(engine(model_dir), progress=lines.append)
    for path in model_dir.glob("calibration-*.json"):
        path.write_text("{")

    # when
    stored_or_measured(engine(model_dir, max_running_requests=4), progress=lines.append)
    stored_or_measured(engine(model_dir), progress=lines.append)

    # then
    assert sum(line.startswith("calibrated in") for line in lines[-4:]) == 2
