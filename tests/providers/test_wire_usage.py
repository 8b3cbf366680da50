"""Vendors' usage blocks into canonical counts.

`usage_bodies.json` holds usage blocks of real answers and what genai-prices (MIT, see
LICENSE-genai-prices) extracts from them, an independent reading of the same conventions.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing.usage import CanonicalUsage, UsageError
from providers.wires import usage
from providers.wires.usage import SUBSET, AnthropicUsage, Convention, OpenAIUsage

ROWS = msgspec.json.decode((Path(__file__).parent / "usage_bodies.json").read_bytes())
# Units that are not tokens, and a cache write that is said twice.
NOT_COMPARED = frozenset({"web_searches", "cache_write_5m_tokens"})
# Its total of 109 is not 35 + 12: the library does not look at totals, we refuse such counts.
WRONG_TOTAL = {"completion_tokens": 12, "prompt_tokens": 35, "total_tokens": 109}


def openai(rule: Convention = SUBSET, **counts: Any) -> CanonicalUsage:
    return usage.from_openai(msgspec.convert(counts, OpenAIUsage), rule)


def anthropic(**counts: Any) -> CanonicalUsage:
    return usage.from_anthropic(msgspec.convert(counts, AnthropicUsage))


def comparable(canonical: CanonicalUsage) -> dict[str, int]:
    counts = {
        "input_tokens": canonical.input_tokens,
        "output_tokens": canonical.output_tokens,
        "cache_read_tokens": canonical.cache_read_tokens,
        "cache_write_tokens": canonical.cache_write_5m_tokens + canonical.cache_write_1h_tokens,
        "output_reasoning_tokens": canonical.reasoning_tokens,
        "input_audio_tokens": canonical.input_audio_tokens,
        "output_audio_tokens": canonical.output_audio_tokens,
    }
    return {name: count for name, count in counts.items() if count}


def test_real_usage_blocks_are_read_as_an_independent_library_reads_them() -> None:
    # given
    assert len(ROWS) > 300
    rows = [row for row in ROWS if row["usage"] != WRONG_TOTAL and "iterations" not in row["usage"]]

    # when
    read = {"openai": openai, "anthropic": anthropic}
    differing = [
        row
        for row in rows
        if comparable(read[row["dialect"]](**row["usage"]))
        != {name: n for name, n in row["expected"].items() if n and name not in NOT_COMPARED}
    ]

    # then
    assert differing == []


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
    ],
)
def test_anthropic_counts_that_do_not_add_up_are_no_usage(counts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        anthropic(**counts)


def test_zero_is_a_count() -> None:
    assert openai(prompt_tokens=0, completion_tokens=0) == CanonicalUsage(
        input_tokens=0, output_tokens=0
    )
