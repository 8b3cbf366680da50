"""What a reader of one stream feels while sixteen others run: gaps between its tokens.

The others are kept at sixteen: each one that ends is replaced, so that new prompts keep coming in.
Gaps are on the engine's clock, between steps that gave the reader something.
"""

import time
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np

from bench.engine.experiments import BATCH, pick
from bench.engine.wire import Settings
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest
from workers.model.sampler import SamplingParams

READER: Final = "reader"
READER_TOKENS: Final = 128
OTHER_TOKENS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Every gap between tokens of the reader, alone and beside the others."""

    alone_ms: list[float]
    crowded_ms: list[float]


def measure(settings: Settings) -> Gaps:
    engine = Engine.load(EngineConfig(**settings, max_running_requests=BATCH + 1))
    _gaps(engine, others=0)
    alone, crowded = _gaps(engine, others=0), _gaps(engine, others=BATCH)
    return Gaps(alone_ms=alone, crowded_ms=crowded)


def _gaps(engine: Engine, *, others: int) -> list[float]:
    """Gaps in milliseconds of one reader beside `others`, from its first token to its last."""
    engine.reset()
    prompts = pick(engine.tokenizer, first=0, count=40)
    engine.add(_request(READER, prompts[0], READER_TOKENS))
    numbers = count(1)
    in_flight = 0
    times: list[float] = []
    reading = True
    while reading:
        while in_flight < others:
            number = next(numbers)
            prompt = prompts[number % len(prompts)]
            engine.add(_request(str(number), prompt, OTHER_TOKENS))
            in_flight += 1
        for progress in engine.step():
            if progress.request_id == READER:
                times.append(time.perf_counter())
                reading = progress.usage is None
            elif progress.usage is not None:
                in_flight -= 1
    engine.abort_all()
    pairs = zip(times, times[1:], strict=False)
    return [round(1e3 * (later - earlier), 2) for earlier, later in pairs]


def _request(name: str, prompt: list[int], output_tokens: int) -> GenerationRequest:
    return GenerationRequest(
        request_id=name,
        prompt=prompt,
        max_tokens=output_tokens,
        # Log probabilities come with every token, so a step that shows no text yet counts as well.
        sampling=SamplingParams(temperature=0.0, logprobs=0),
        ignore_eos=True,
        salt=name,
    )


def quantile(gaps: list[float], percent: int) -> float:
    """Milliseconds that so many percent of the gaps stay below."""
    return float(np.percentile(gaps, percent))
