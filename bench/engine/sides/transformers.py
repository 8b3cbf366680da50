"""transformers as a side of the bench: `generate`, one prompt after the other, or in batches.

Settings: `model_dir`, `threads`, and for continuous batching `batching`, the fields of its
`ContinuousBatchingConfig`; the manager is kept between jobs, so its start is never timed.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from bench.engine.wire import Job, Outcome, Settings, Started, serve
from workers.text.tokenizer import Tokenizer

Generate = Callable[[Job], list[list[int]]]


def start(settings: Settings) -> Started:
    torch.set_num_threads(settings["threads"])
    model_dir = Path(settings["model_dir"])
    model: Any = AutoModelForCausalLM.from_pretrained(
        model_dir, local_files_only=True, dtype=torch.float32
    ).eval()
    # Nothing but the arg max, and no end: every side answers with the same number of tokens.
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    tokenizer = Tokenizer(model_dir)
    generate = _one_by_one(model)
    if "batching" in settings:
        generate = _continuous(model, ContinuousBatchingConfig(**settings["batching"]))
    facts = {"torch": torch.__version__, "transformers": transformers.__version__}
    return Started(lambda job: run(generate, tokenizer, job), facts)


def run(generate: Generate, tokenizer: Tokenizer, job: Job) -> Outcome:
    started = time.perf_counter()
    outputs = generate(job)
    seconds = time.perf_counter() - started
    return Outcome(
        seconds=seconds,
        output_tokens=sum(len(tokens) for tokens in outputs),
        texts=[tokenizer.decode(tokens) for tokens in outputs],
        steps=sum(len(tokens) for tokens in outputs),
    )


def _one_by_one(model: Any) -> Generate:
    def generate(job: Job) -> list[list[int]]:
        return [_generate_one(model, prompt, job.output_tokens) for prompt in job.prompts]

    return generate


@torch.inference_mode()
def _generate_one(model: Any, prompt: list[int], output_tokens: int) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=output_tokens,
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


def _continuous(model: Any, config: ContinuousBatchingConfig) -> Generate:
    def generate(job: Job) -> list[list[int]]:
        results = model.generate_batch(
            inputs=job.prompts,
            generation_config=GenerationConfig(
                do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=job.output_tokens
            ),
            continuous_batching_config=config,
            persistent_manager=True,
        )
        return [list(result.generated_tokens) for result in results.values()]

    return generate


if __name__ == "__main__":
    serve(start)
