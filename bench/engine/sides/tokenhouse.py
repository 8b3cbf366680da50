"""The project's own engine as a side of the bench; settings are fields of `EngineConfig`."""

import time
from pathlib import Path

import torch

from bench.engine.wire import Job, Outcome, Settings, Started, serve
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.metrics import RequestUsage
from workers.engine.sequence import GenerationRequest
from workers.model.sampler import SamplingParams


def start(settings: Settings) -> Started:
    engine = Engine.load(EngineConfig(**{**settings, "model_dir": Path(settings["model_dir"])}))
    facts = {"torch": torch.__version__, "products": engine.model.linear_kind}
    return Started(lambda job: run(engine, job), facts)


def run(engine: Engine, job: Job) -> Outcome:
    texts = {str(index): "" for index in range(len(job.prompts))}
    usages: list[RequestUsage] = []
    started = time.perf_counter()
    for request in requests(job):
        engine.add(request)
    while engine.has_work:
        for progress in engine.step():
            texts[progress.request_id] += progress.text
            if progress.usage is not None:
                usages.append(progress.usage)
    return Outcome(
        seconds=time.perf_counter() - started,
        output_tokens=sum(usage.completion_tokens for usage in usages),
        texts=list(texts.values()),
        steps=sum(usage.steps for usage in usages),
        drafted=sum(usage.drafted for usage in usages),
        accepted=sum(usage.accepted for usage in usages),
        first_seconds=max(usage.queue_ms + usage.prefill_ms for usage in usages) / 1e3,
    )


def requests(job: Job) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            request_id=str(index),
            prompt=prompt,
            max_tokens=job.output_tokens,
            sampling=SamplingParams(temperature=0.0),
            ignore_eos=True,
            salt=job.salt if job.shared_salt else f"{job.salt}-{index}",
        )
        for index, prompt in enumerate(job.prompts)
    ]


if __name__ == "__main__":
    serve(start)
