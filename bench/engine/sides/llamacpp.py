"""llama.cpp (the `xllamacpp` wheel) as a side of the bench; runs in the peers' environment.

Settings: `gguf`, `threads`, `slots`, `context` (tokens for each slot), `flash_attention` (-1 lets
llama.cpp decide) and `speculation`, a name of its own kinds of drafts or null.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import xllamacpp

from bench.engine.wire import Job, Outcome, Settings, Started, serve

QUIET = 0


def start(settings: Settings) -> Started:
    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.flash_attn_type = settings["flash_attention"]
    params.verbosity = QUIET
    if settings["speculation"]:
        kind = f"COMMON_SPECULATIVE_TYPE_{settings['speculation'].upper()}"
        params.speculative.types = [getattr(xllamacpp.common_speculative_type, kind)]
    server = xllamacpp.Server(params)
    facts = {"xllamacpp": version("xllamacpp")}
    return Started(lambda job: run(server, job), facts)


def run(server: Any, job: Job) -> Outcome:
    def answer(prompt: list[int]) -> dict[str, Any]:
        call = {
            "prompt": prompt,
            "n_predict": job.output_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            # Every job is new to every side.
            "cache_prompt": False,
        }
        result: dict[str, Any] = server.handle_completions(call)
        return result

    started = time.perf_counter()
    with ThreadPoolExecutor(len(job.prompts)) as threads:
        results = list(threads.map(answer, job.prompts))
    seconds = time.perf_counter() - started
    timings = [result["timings"] for result in results]
    tokens = sum(result["usage"]["completion_tokens"] for result in results)
    accepted = sum(timing.get("draft_n_accepted", 0) for timing in timings)
    return Outcome(
        seconds=seconds,
        output_tokens=tokens,
        texts=[result["choices"][0]["text"] for result in results],
        steps=tokens - accepted,
        drafted=sum(timing.get("draft_n", 0) for timing in timings),
        accepted=accepted,
        # Of one prompt only: the time in the queue of slots is not told.
        first_seconds=timings[0]["prompt_ms"] / 1e3 if len(timings) == 1 else None,
    )


if __name__ == "__main__":
    serve(start)
