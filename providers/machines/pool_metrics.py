"""What attached servers say of their load at /metrics, in one set of words. Pure.

Each engine has its own names for the same few facts. Samples of several engines or ranks behind one
address are added, shares are taken at their worst. What an engine does not say is left out.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

# Facts by engine, with the names that its versions gave them; the first one that is there counts.
NAMES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "vllm": {
        "running": ("vllm:num_requests_running",),
        "waiting": ("vllm:num_requests_waiting",),
        "kv_cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "input_tokens": ("vllm:prompt_tokens_total",),
        "output_tokens": ("vllm:generation_tokens_total",),
        "prefix_queries": ("vllm:prefix_cache_queries_total",),
        "prefix_hits": ("vllm:prefix_cache_hits_total",),
        "drafted": ("vllm:spec_decode_num_draft_tokens_total",),
        "accepted": ("vllm:spec_decode_num_accepted_tokens_total",),
    },
    "sglang": {
        "running": ("sglang:num_running_reqs",),
        "waiting": ("sglang:num_queue_reqs",),
        "kv_cache_usage": ("sglang:token_usage",),
        "input_tokens": ("sglang:prompt_tokens_total",),
        "output_tokens": ("sglang:generation_tokens_total",),
    },
    "tgi": {
        "running": ("tgi_batch_current_size",),
        "waiting": ("tgi_queue_size",),
        "input_tokens": ("tgi_request_input_length_sum",),
        "output_tokens": ("tgi_request_generated_tokens_sum",),
    },
    "llama.cpp": {
        "running": ("llamacpp:requests_processing",),
        "waiting": ("llamacpp:requests_deferred",),
        "kv_cache_usage": ("llamacpp:kv_cache_usage_ratio",),
        "input_tokens": ("llamacpp:prompt_tokens_total",),
        "output_tokens": ("llamacpp:tokens_predicted_total",),
    },
    "tokenhouse": {
        "running": ("tokenhouse_worker_num_requests_running",),
        "waiting": ("tokenhouse_worker_num_requests_waiting",),
        "kv_cache_usage": ("tokenhouse_worker_kv_cache_usage_perc",),
        "input_tokens": ("tokenhouse_worker_prompt_tokens_total",),
        "output_tokens": ("tokenhouse_worker_generation_tokens_total",),
        "prefix_queries": ("tokenhouse_worker_prefix_cache_queries_total",),
        "prefix_hits": ("tokenhouse_worker_prefix_cache_hits_total",),
        "drafted": ("tokenhouse_worker_spec_decode_num_draft_tokens_total",),
        "accepted": ("tokenhouse_worker_spec_decode_num_accepted_tokens_total",),
    },
}
# Engines that keep prompts with different `cache_salt`s apart.
SALTED: Final = frozenset({"vllm", "tokenhouse"})
SHARES: Final = frozenset({"kv_cache_usage"})
SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)")


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine of this kind says, by the names above: `running`, `waiting`, …"""

    engine: str
    figures: Mapping[str, int | float]


def load_of(page: str) -> Load | None:
    """The load on a page of metrics; None of one nobody knows."""
    samples: dict[str, list[float]] = {}
    for name, value in _samples(page):
        samples.setdefault(name, []).append(value)
    for engine, facts in NAMES.items():
        found = {fact: _value(fact, names, samples) for fact, names in facts.items()}
        known = {fact: value for fact, value in found.items() if value is not None}
        if known:
            return Load(engine, known)
    return None


def _value(
    fact: str, names: tuple[str, ...], samples: Mapping[str, list[float]]
) -> int | float | None:
    for name in names:
        if name in samples:
            if fact in SHARES:
                return round(min(max(samples[name]), 1.0), 4)
            return int(sum(samples[name]))
    return None


def _samples(page: str) -> Iterator[tuple[str, float]]:
    """Finite samples that are not negative; a line that is none is passed over."""
    for line in page.splitlines():
        sample = SAMPLE.match(line)
        if sample is None:
            continue
        try:
            value = float(sample[2])
        except ValueError:
            continue
        if math.isfinite(value) and 0 <= value < 1e18:
            yield sample[1], value
