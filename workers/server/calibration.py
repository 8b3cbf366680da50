"""What this machine makes of a fixed mix of requests: the measurement behind the worker's price.

A closed loop keeps the engine saturated with the same requests in every mode, half of them
friendly to prompt lookup (extraction, code edits) and half not (chat, questions). It is measured
while every place of the loop is taken: an emptying engine would say more about the longest answer.
Then one stream runs alone, and more than there are seats at once, for the gaps between tokens. The
result is kept beside the model, by mode and machine, so that a restart does not measure again.
"""

import hashlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.gaps import GapFigures
from workers.engine.sequence import GenerationRequest
from workers.engine.totals import Totals
from workers.identity import code_digest
from workers.model.sampler import SamplingParams
from workers.server.console_bodies import CalibrationFacts

CONCURRENCY = 8
REQUESTS = 32
OUTPUT_TOKENS = 48
SECONDS_MAX = 60.0
ALONE_TOKENS, FULL_TOKENS = 64, 24
GAPS_SECONDS_MAX = 20.0
MIX = f"{REQUESTS} greedy requests, {CONCURRENCY} at a time: extract, code edit, chat, question"

PEOPLE = ("Ada", "Bela", "Chen", "Dora", "Emil", "Fay", "Goro", "Hana")
CITIES = ("Oslo", "Lima", "Turin", "Quito", "Perth", "Delhi", "Bern", "Osaka")

Progress = Callable[[str], None]


class Calibration(CalibrationFacts, frozen=True, kw_only=True):
    """What a console hears of it, and what is kept besides."""

    drafted: int
    accepted: int
    input_tokens: int
    steps: int
    busy_seconds: float
    draft_seconds: float
    dispatch_seconds: float
    gaps: GapFigures


def mix_prompts() -> list[str]:
    """The texts of the mix: fixed, and all different, so that none is found in the prefix cache."""
    makers = (_extraction, _code_edit, _chat, _question)
    return [makers[index % len(makers)](index // len(makers)) for index in range(REQUESTS)]


def calibrate(engine: Engine, *, clock: Callable[[], float] = time.perf_counter) -> Calibration:
    """Run the mix on a fresh engine, report tokens per second of engine time, and reset it."""
    assert not engine.has_work
    engine.meter.restart()
    waiting = [
        _request(engine, index, text, tokens=OUTPUT_TOKENS)
        for index, text in enumerate(mix_prompts())
    ]
    waiting.reverse()
    started = clock()
    in_flight = finished = 0
    while waiting and clock() - started < SECONDS_MAX:
        while waiting and in_flight < CONCURRENCY:
            engine.add(waiting.pop())
            in_flight += 1
        ended = sum(1 for item in engine.step() if item.finish_reason is not None)
        in_flight -= ended
        finished += ended
    seconds = clock() - started
    engine.publish_gauges()
    totals, joules = engine.metrics.totals, engine.meter.joules()
    engine.reset()
    gaps = measure_gaps(engine, clock=clock)
    return _result(totals, seconds=seconds, sample=finished, joules=joules, gaps=gaps)


def measure_gaps(engine: Engine, *, clock: Callable[[], float] = time.perf_counter) -> GapFigures:
    """Gaps between tokens of a stream alone and of streams in a full house; resets the engine.

    Half as many again as there are seats arrive at once, so that prompts are read meanwhile.
    """
    texts, seats = mix_prompts(), engine.config.max_running_requests
    ends_at = clock() + GAPS_SECONDS_MAX
    crowd = min(seats + (seats + 1) // 2, engine.config.max_requests)
    for tokens, arriving in ((ALONE_TOKENS, 1), (FULL_TOKENS, crowd)):
        for index in range(arriving):
            # Backwards: the last prompt is a question, which drafts hardly help.
            text = texts[-1 - index % len(texts)]
            engine.add(_request(engine, index, text, tokens=tokens, ignore_eos=True))
        while engine.has_work and clock() < ends_at:
            engine.step()
    figures = engine.metrics.gaps.figures()
    engine.reset()
    return figures


def _request(
    engine: Engine, index: int, text: str, *, tokens: int, ignore_eos: bool = False
) -> GenerationRequest:
    return GenerationRequest(
        request_id=f"calibration-{index}",
        prompt=engine.tokenizer.encode_chat([{"role": "user", "content": text}]),
        max_tokens=tokens,
        sampling=SamplingParams(temperature=0.0),
        ignore_eos=ignore_eos,
        # A salt of its own keeps the mix out of the tenants' prefix cache, and its texts apart.
        salt=f"calibration-{index}",
        auditable=False,
    )


def _result(
    totals: Totals, *, seconds: float, sample: int, joules: float | None, gaps: GapFigures
) -> Calibration:
    busy_seconds = totals.input_seconds + totals.output_seconds
    return Calibration(
        input_tokens_per_s=round(totals.input_tokens_uncached / totals.input_seconds, 3),
        output_tokens_per_s=round(totals.output_tokens / totals.output_seconds, 3),
        input_time_share=round(totals.input_seconds / busy_seconds, 6),
        seconds=round(seconds, 3),
        sample=sample,
        mix=MIX,
        drafted=totals.drafted,
        accepted=totals.accepted,
        input_tokens=totals.input_tokens_uncached,
        output_tokens=totals.output_tokens,
        steps=totals.steps,
        busy_seconds=round(busy_seconds, 6),
        draft_seconds=round(totals.draft_seconds, 6),
        dispatch_seconds=round(totals.dispatch_seconds, 6),
        gaps=gaps,
        joules=joules,
    )


def processor_of(device: torch.device) -> str:
    """The name of what computes."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {device.index}"
    return cpu_model()


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def stored_or_measured(engine: Engine, *, progress: Progress) -> Calibration:
    """The stored calibration of this mode and machine, else a fresh one, stored."""
    path = engine.config.model_dir / f"calibration-{_key(engine)}.json"
    stored = _read(path)
    if stored is not None:
        progress(f"calibration of an earlier start: {_summary(stored)}")
        return stored
    progress(f"calibrating ({MIX})")
    measured = calibrate(engine)
    _write(path, measured)
    progress(f"calibrated in {measured.seconds:.1f} s: {_summary(measured)}")
    return measured


def _summary(calibration: Calibration) -> str:
    return (
        f"{calibration.input_tokens_per_s:.0f} input and "
        f"{calibration.output_tokens_per_s:.0f} output tokens per second of engine time"
    )


def _key(engine: Engine) -> str:
    config: EngineConfig = engine.config
    facts = (
        None if config.adapter_dir is None else str(config.adapter_dir.resolve()),
        config.speculation,
        str(config.draft_model_dir),
        str(config.draft_head),
        config.draft_layers,
        str(config.phrases.resolve()),
        (config.contextual_sparsity, config.exit_layer, config.exit_confidence),
        config.threads,
        config.token_budget,
        config.max_running_requests,
        code_digest(),
        engine.model.linear_kind,
        processor_of(engine.model.device),
        os.cpu_count(),
        sys.version_info[:2],
        MIX,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read(path: Path) -> Calibration | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except msgspec.DecodeError:
        return None


def _write(path: Path, calibration: Calibration) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(msgspec.json.encode(calibration))
    Path(file.name).replace(path)


def _extraction(index: int) -> str:
    records = "\n".join(
        f"- order {1000 + 37 * index + 11 * row}: {PEOPLE[(index + row) % 8]} from "
        f"{CITIES[(3 * index + row) % 8]} paid {20 + 7 * row + index} euros by card"
        for row in range(5)
    )
    return f"Copy every line of this list that mentions a card, word by word:\n{records}"


def _code_edit(index: int) -> str:
    name = PEOPLE[index % 8].lower()
    return (
        f"Rename the function to total_{name} and return the whole code again:\n"
        f"def sum_{name}(items, tax_{name}):\n"
        f"    result_{name} = 0\n"
        f"    for item in items:\n"
        f"        result_{name} += item.price * item.count\n"
        f"    result_{name} += result_{name} * tax_{name}\n"
        f"    return result_{name}\n"
    )


def _chat(index: int) -> str:
    return (
        f"My friend {PEOPLE[(index + 3) % 8]} moves to {CITIES[index % 8]} next month and is "
        f"nervous about it. What could I say to encourage them, in a few warm sentences?"
    )


def _question(index: int) -> str:
    topics = ("tides", "rainbows", "earthquakes", "seasons", "echoes", "magnets", "clouds", "ice")
    return (
        f"Explain to a curious child of {8 + index % 4} years how {topics[index % 8]} come about."
    )
