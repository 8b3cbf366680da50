"""Chat and Messages usage into canonical counts; real answers are in test_ground_truth."""

from typing import Any

import msgspec
import pytest

from billing.usage import CanonicalUsage, UsageError
from providers.wires import usage
from providers.wires.usage import SUBSET, AnthropicUsage, Convention, OpenAIUsage

# Its total of 109 is not 35 + 12: the library does not look at totals, we refuse such counts.
WRONG_TOTAL = {"completion_tokens": 12, "prompt_tokens": 35, "total_tokens": 109}


def openai(rule: Convention = SUBSET, **counts: Any) -> CanonicalUsage:
    return usage.from_openai(msgspec.convert(counts, OpenAIUsage), rule)


def anthropic(**counts: Any) -> CanonicalUsage:
    return usage.from_anthropic(msgspec.convert(counts, AnthropicUsage))


def test_openai_counts_parts_inside_their_parents() -> None:
    canonical = openai(
        prompt_tokens=4_000,
        completion_tokens=50,
        total_tokens=4_050,
        prompt_tokens_details={"cached_tokens": 3_962},
        completion_tokens_details={"reasoning_tokens": 30},
    )

    assert (canonical.input_tokens, canonical.uncached_input_tokens) == (4_000, 38)
    assert (canonical.output_tokens, canonical.text_output_tokens) == (50, 20)


def test_anthropic_counts_the_cache_beside_the_input() -> None:
    canonical = anthropic(
        input_tokens=9,
        cache_read_input_tokens=3_962,
        cache_creation_input_tokens=100,
        cache_creation={"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
        output_tokens=50,
    )

    assert canonical == CanonicalUsage(
        input_tokens=4_071,
        output_tokens=50,
        cache_read_tokens=3_962,
        cache_write_5m_tokens=60,
        cache_write_1h_tokens=40,
    )


def test_a_provider_that_counts_the_cache_beside_the_prompt_is_known_by_name() -> None:
    rule = usage.convention("snowflake", "openai")

    canonical = openai(
        rule,
        prompt_tokens=7,
        cache_read_input_tokens=4_805,
        completion_tokens=6,
        total_tokens=4_818,
    )

    assert (canonical.input_tokens, canonical.cache_read_tokens) == (4_812, 4_805)


def test_a_provider_that_counts_reasoning_beside_the_completion_is_known_by_name() -> None:
    counts = {
        "prompt_tokens": 35,
        "completion_tokens": 12,
        "total_tokens": 109,
        "completion_tokens_details": {"reasoning_tokens": 62},
    }

    assert openai(usage.convention("google", "openai"), **counts).output_tokens == 74
    with pytest.raises(UsageError):
        openai(usage.convention("acme", "openai"), **counts)


def test_every_pass_of_a_compacted_conversation_is_counted() -> None:
    canonical = anthropic(
        input_tokens=180,
        output_tokens=8,
        cache_creation_input_tokens=0,
        iterations=[
            {
                "type": "compaction",
                "input_tokens": 100,
                "output_tokens": 82,
                "cache_creation_input_tokens": 55_096,
            },
            {"type": "message", "input_tokens": 180, "output_tokens": 8},
        ],
    )

    assert canonical == CanonicalUsage(
        input_tokens=100 + 180 + 55_096, output_tokens=90, cache_write_5m_tokens=55_096
    )


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"prompt_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": 1},
        WRONG_TOTAL,
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 6},
        },
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "completion_tokens_details": {"image_tokens": 8},
        },
        {"prompt_tokens": 5, "completion_tokens": 1, "citation_tokens": 3},
        {"prompt_tokens": 5, "completion_tokens": 1, "num_search_queries": 1},
        {"prompt_tokens": 5, "completion_tokens": 1, "num_sources_used": 1},
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "server_tool_use": {"web_search_requests": 1},
        },
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "server_tool_use_details": {"tool_calls_executed": 1},
        },
    ],
)
def test_openai_counts_that_do_not_add_up_are_no_usage(counts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        openai(**counts)


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": 5},
        {"output_tokens": 5},
        {
            "input_tokens": 1,
            "output_tokens": 1,
            "cache_creation_input_tokens": 10,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
        },
        {
            "input_tokens": 1,
            "output_tokens": 1,
            "iterations": [{"type": "advisor_message", "input_tokens": 1, "output_tokens": 1}],
        },
        {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"web_search_requests": 1}},
    ],
)
def test_anthropic_counts_that_do_not_add_up_are_no_usage(counts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        anthropic(**counts)


def test_zero_is_a_count() -> None:
    assert openai(prompt_tokens=0, completion_tokens=0) == CanonicalUsage(
        input_tokens=0, output_tokens=0
    )


def test_what_a_vendor_did_beside_counting_stays_for_the_client_to_see() -> None:
    tools = {"web_search_requests": 0, "web_fetch_requests": 1}

    assert usage.extra({"input_tokens": 1, "server_tool_use": tools}) == {"server_tool_use": tools}
