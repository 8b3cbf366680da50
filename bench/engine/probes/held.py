"""How many sequences a fixed KV budget holds: counted in a real run, against reservation.

The contiguous rival gives each sequence its maximum length at admission. What it would hold is
arithmetic; what the block pool holds is the mean number of running sequences while others wait.
"""

from dataclasses import dataclass
from typing import Final

from bench.engine.experiments import pick
from bench.engine.wire import Settings
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest
from workers.model.sampler import SamplingParams

KV_BLOCKS: Final = 513
REQUESTS: Final = 96
OUTPUT_TOKENS: Final = 64
RESERVED: Final = (1024, 2048, 8192)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Counts over the steps in which requests waited; `usage` is the share in use, step by step."""

    budget_tokens: int
    held_mean: float
    held_max: int
    preemptions: int
    tokens_mean: float
    usage: list[float]

    def reserved_holds(self, length: int) -> int:
        """Sequences that fit when each reserves `length` tokens."""
        return self.budget_tokens // length


def measure(settings: Settings) -> Held:
    config = EngineConfig(
        **settings,
        kv_blocks=KV_BLOCKS,
        token_budget=256,
        max_running_requests=REQUESTS,
    )
    engine = Engine.load(config)
    prompts = pick(engine.tokenizer, first=0, count=REQUESTS)
    for index, prompt in enumerate(prompts):
        engine.add(_request(index, prompt))
    usage: list[float] = []
    running: list[int] = []
    while engine.has_work:
        engine.step()
        load = engine.load_now
        usage.append(load.kv_cache_usage)
        if load.waiting:
            running.append(load.running)
    return Held(
        budget_tokens=config.kv_capacity,
        held_mean=sum(running) / len(running),
        held_max=max(running),
        preemptions=engine.scheduler.stats.preemptions,
        tokens_mean=sum(map(len, prompts)) / len(prompts) + OUTPUT_TOKENS,
        usage=usage,
    )


def _request(index: int, prompt: list[int]) -> GenerationRequest:
    return GenerationRequest(
        request_id=str(index),
        prompt=prompt,
        max_tokens=OUTPUT_TOKENS,
        sampling=SamplingParams(temperature=0.0),
        ignore_eos=True,
        # Nobody shares anything: a shared prefix would make the figure better.
        salt=str(index),
    )
