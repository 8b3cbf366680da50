"""Throughput by the number of requests at once: reading prompts, writing answers, and both.

Steps are told apart by whether they computed any token of a prompt, so decoding is timed with all
seats taken and nothing else going on.
"""

import time
from dataclasses import dataclass
from typing import Final

from bench.engine.experiments import BATCH_TOKENS, SWEEP, pick
from bench.engine.wire import Settings
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest
from workers.model.sampler import SamplingParams

ROUNDS: Final = 2
# Room for all: here nobody waits for a block.
KV_BLOCKS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowds:
    """Tokens per second by requests at once, the best of `ROUNDS`.

    `prompt`: of prompts, in steps that had some; `decode`: of answers, in steps that had none;
    `end_to_end`: of answers, over everything.
    """

    at_once: list[int]
    prompt: list[float]
    decode: list[float]
    end_to_end: list[float]


@dataclass(slots=True)
class _Times:
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    output_tokens: int = 0

    @property
    def speeds(self) -> tuple[float, float, float]:
        whole = self.prompt_seconds + self.decode_seconds
        return (
            self.prompt_tokens / self.prompt_seconds,
            self.decode_tokens / self.decode_seconds,
            self.output_tokens / whole,
        )


def measure(settings: Settings) -> Crowds:
    config = EngineConfig(
        **settings, kv_blocks=KV_BLOCKS, token_budget=256, max_running_requests=max(SWEEP)
    )
    engine = Engine.load(config)
    _run(engine, 1)
    speeds = [[_run(engine, count).speeds for _ in range(ROUNDS)] for count in SWEEP]
    best = [[round(max(column), 1) for column in zip(*rows, strict=True)] for rows in speeds]
    prompt, decode, end_to_end = (list(column) for column in zip(*best, strict=True))
    return Crowds(at_once=list(SWEEP), prompt=prompt, decode=decode, end_to_end=end_to_end)


def _run(engine: Engine, count: int) -> _Times:
    engine.reset()
    for index, prompt in enumerate(pick(engine.tokenizer, first=3 * count, count=count)):
        engine.add(_request(index, prompt))
    times, totals = _Times(), engine.metrics.totals
    while engine.has_work:
        read, written = totals.input_tokens_uncached, totals.output_tokens
        reading = any(not sequence.is_decoding for sequence in engine.scheduler.running)
        waiting = len(engine.scheduler.waiting)
        started = time.perf_counter()
        engine.step()
        seconds = time.perf_counter() - started
        reading = reading or len(engine.scheduler.waiting) < waiting
        new = totals.output_tokens - written
        times.output_tokens += new
        if reading:
            times.prompt_seconds += seconds
            times.prompt_tokens += totals.input_tokens_uncached - read
        else:
            times.decode_seconds += seconds
            times.decode_tokens += new
    return times


def _request(index: int, prompt: list[int]) -> GenerationRequest:
    return GenerationRequest(
        request_id=str(index),
        prompt=prompt,
        max_tokens=BATCH_TOKENS,
        sampling=SamplingParams(temperature=0.0),
        ignore_eos=True,
        salt=str(index),
    )
