"""Every engine's own words for its load, in the shapes that their documentation shows."""

from typing import Any

import pytest

from providers.machines.pool_metrics import Load, load_of

VLLM = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-32B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-32B"} 2.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-32B"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-32B"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-32B"} 0.5
vllm:prefix_cache_queries_total{engine="0",model_name="Qwen/Qwen3-32B"} 1000.0
vllm:prefix_cache_hits_total{engine="0",model_name="Qwen/Qwen3-32B"} 250.0
vllm:prompt_tokens_total{engine="0",model_name="Qwen/Qwen3-32B"} 8.128902e+06
vllm:prompt_tokens_created{engine="0",model_name="Qwen/Qwen3-32B"} 1.7640001e+09
vllm:generation_tokens_total{engine="0",model_name="Qwen/Qwen3-32B"} 4242.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="Qwen/Qwen3-32B"} 90.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="Qwen/Qwen3-32B"} 60.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-32B"} 0.0
"""
SGLANG = """
# HELP sglang:token_usage The token usage
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.28
sglang:prompt_tokens_total{model_name="meta-llama/Llama-3.1-8B-Instruct"} 8.128902e+06
sglang:generation_tokens_total{model_name="meta-llama/Llama-3.1-8B-Instruct"} 7.557572e+06
sglang:cache_hit_rate{model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.0075
sglang:num_running_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 161.0
sglang:num_queue_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 2826.0
"""
TGI = """
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 4
# TYPE tgi_queue_size gauge
tgi_queue_size 11
tgi_request_generated_tokens_bucket{le="64"} 3
tgi_request_generated_tokens_sum 512
tgi_request_generated_tokens_count 9
tgi_request_input_length_sum 1024
"""
LLAMA_CPP = """
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 120
llamacpp:tokens_predicted_total 60
llamacpp:predicted_tokens_seconds 41.3
llamacpp:requests_processing 1
llamacpp:requests_deferred 0
"""


@pytest.mark.parametrize(
    ("page", "load"),
    [
        (
            VLLM,
            {
                "engine": "vllm",
                "running": 5,
                "waiting": 7,
                "kv_cache_usage": 0.5,
                "input_tokens": 8_128_902,
                "output_tokens": 4242,
                "prefix_queries": 1000,
                "prefix_hits": 250,
                "drafted": 90,
                "accepted": 60,
            },
        ),
        (
            SGLANG,
            {
                "engine": "sglang",
                "running": 161,
                "waiting": 2826,
                "kv_cache_usage": 0.28,
                "input_tokens": 8_128_902,
                "output_tokens": 7_557_572,
            },
        ),
        (
            TGI,
            {
                "engine": "tgi",
                "running": 4,
                "waiting": 11,
                "input_tokens": 1024,
                "output_tokens": 512,
            },
        ),
        (
            LLAMA_CPP,
            {
                "engine": "llama.cpp",
                "running": 1,
                "waiting": 0,
                "input_tokens": 120,
                "output_tokens": 60,
            },
        ),
    ],
)
def test_every_engine_is_understood(page: str, load: dict[str, Any]) -> None:
    assert load_of(page) == Load(load.pop("engine"), load)


def test_older_names_are_known_too() -> None:
    page = 'vllm:num_requests_running{model_name="m"} 1\nvllm:gpu_cache_usage_perc 0.75\n'
    assert load_of(page) == Load("vllm", {"running": 1, "kv_cache_usage": 0.75})


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html>not found</html>",
        "vllm:num_requests_running NaN",
        "vllm:num_requests_running -1",
        "vllm:num_requests_running 1e300",
        'vllm:num_requests_running{model_name="x" 5',
        "vllm:num_requests_running",
        "python_info 1.0",
        "\x00" * 100,
    ],
)
def test_nonsense_says_nothing(page: str) -> None:
    assert load_of(page) is None
