"""Usage of the surfaces beside chat: what is counted where, and what cannot be priced."""

from typing import Any

import pytest

from billing.usage import CanonicalUsage, UsageError
from providers.wires.usage_surfaces import read


def gemini(**counts: Any) -> CanonicalUsage:
    return read("google", "gemini", {"usageMetadata": counts})


def converse(**counts: Any) -> CanonicalUsage:
    return read("aws", "converse", {"usage": counts})


def of(modality: str, tokens: int) -> list[dict[str, Any]]:
    return [{"modality": modality, "tokenCount": tokens}]


def test_responses_count_parts_inside_their_parents() -> None:
    canonical = read(
        "openai",
        "responses",
        {
            "usage": {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 15},
                "total_tokens": 120,
            }
        },
    )

    assert canonical == CanonicalUsage(
        input_tokens=100,
        output_tokens=20,
        cache_read_tokens=60,
        cache_write_5m_tokens=30,
        reasoning_tokens=15,
    )


def test_gemini_counts_thoughts_and_tool_prompts_beside_their_parents() -> None:
    canonical = gemini(
        promptTokenCount=10,
        toolUsePromptTokenCount=7,
        candidatesTokenCount=5,
        thoughtsTokenCount=3,
        totalTokenCount=25,
    )

    assert canonical == CanonicalUsage(input_tokens=17, output_tokens=8, reasoning_tokens=3)


def test_gemini_takes_cached_pictures_out_of_the_pictures() -> None:
    canonical = gemini(
        promptTokenCount=328,
        promptTokensDetails=of("TEXT", 70) + of("IMAGE", 258),
        cachedContentTokenCount=183,
        cacheTokensDetails=of("IMAGE", 144) + of("TEXT", 39),
        candidatesTokenCount=78,
        totalTokenCount=406,
    )

    assert (canonical.cache_read_tokens, canonical.input_image_tokens) == (183, 114)
    assert canonical.uncached_input_tokens == 31


def test_gemini_counts_sound_apart_and_frames_as_text() -> None:
    canonical = gemini(
        promptTokenCount=60,
        promptTokensDetails=of("AUDIO", 20) + of("VIDEO", 30) + of("TEXT", 10),
        totalTokenCount=60,
    )

    assert (canonical.input_audio_tokens, canonical.uncached_input_tokens) == (20, 40)


@pytest.mark.parametrize(
    "counts",
    [
        {"promptTokenCount": 5},
        {"promptTokenCount": 5, "totalTokenCount": 6},
        {
            "promptTokenCount": 5,
            "totalTokenCount": 5,
            "cachedContentTokenCount": 4,
            "cacheTokensDetails": of("AUDIO", 4),
        },
        {
            "promptTokenCount": 5,
            "totalTokenCount": 5,
            "cachedContentTokenCount": 2,
            "promptTokensDetails": of("IMAGE", 5),
        },
        {
            "promptTokenCount": 5,
            "candidatesTokenCount": 9,
            "totalTokenCount": 14,
            "candidatesTokensDetails": of("IMAGE", 9),
        },
        {"promptTokenCount": 5, "totalTokenCount": 5, "promptTokensDetails": of("SMELL", 5)},
        {"promptTokenCount": "5", "totalTokenCount": 5},
    ],
)
def test_gemini_counts_that_cannot_be_priced_are_no_usage(counts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        gemini(**counts)


def test_converse_counts_the_cache_beside_the_input() -> None:
    canonical = converse(
        inputTokens=3,
        outputTokens=61,
        cacheReadInputTokens=2_074,
        cacheWriteInputTokens=297,
        cacheDetails=[{"ttl": "5m", "inputTokens": 200}, {"ttl": "1h", "inputTokens": 97}],
        totalTokens=2_435,
    )

    assert canonical == CanonicalUsage(
        input_tokens=2_374,
        output_tokens=61,
        cache_read_tokens=2_074,
        cache_write_5m_tokens=200,
        cache_write_1h_tokens=97,
    )


@pytest.mark.parametrize(
    "counts",
    [
        {"inputTokens": 3},
        {"inputTokens": 3, "outputTokens": 1, "totalTokens": 5},
        {"inputTokens": 3, "outputTokens": 1, "serverToolUsage": {"webSearchRequests": 1}},
        {
            "inputTokens": 3,
            "outputTokens": 1,
            "cacheWriteInputTokens": 9,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 8}],
        },
        {
            "inputTokens": 3,
            "outputTokens": 1,
            "cacheWriteInputTokens": 9,
            "cacheDetails": [{"ttl": "1w", "inputTokens": 9}],
        },
    ],
)
def test_converse_counts_that_cannot_be_priced_are_no_usage(counts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        converse(**counts)


def test_cohere_is_paid_by_the_billed_units() -> None:
    canonical = read(
        "cohere",
        "cohere",
        {
            "usage": {
                "billed_units": {"input_tokens": 41, "output_tokens": 25},
                "tokens": {"input_tokens": 1_441, "output_tokens": 54},
                "cached_tokens": 144,
            }
        },
    )

    assert canonical == CanonicalUsage(input_tokens=41, output_tokens=25)


def test_the_convention_of_the_seller_is_kept() -> None:
    answer = {
        "usage": {
            "prompt_tokens": 35,
            "completion_tokens": 12,
            "total_tokens": 109,
            "completion_tokens_details": {"reasoning_tokens": 62},
        }
    }

    assert read("x-ai", "chat", answer).output_tokens == 74
    with pytest.raises(UsageError):
        read("acme", "chat", answer)


@pytest.mark.parametrize(
    ("surface", "answer"),
    [
        ("telex", {"usage": {"input_tokens": 1, "output_tokens": 1}}),
        (
            "responses",
            {
                "usage": {
                    "input_tokens": 1,
                    "output_tokens": 1,
                    "tool_calls_details": {"search_web": {"invocation": 1}},
                }
            },
        ),
        ("messages", {}),
        ("messages", {"usage": None}),
        ("cohere", {"usage": {"billed_units": {"input_tokens": 1}}}),
        (
            "cohere",
            {"usage": {"billed_units": {"input_tokens": 1, "output_tokens": 1, "search_units": 1}}},
        ),
    ],
)
def test_an_answer_without_usage_that_can_be_read_is_refused(
    surface: str, answer: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        read("acme", surface, answer)


def realtime(**details: Any) -> dict[str, Any]:
    counts = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150, **details}
    return {"type": "response.done", "response": {"usage": counts}}


def test_realtime_s_sound_and_cache_stand_inside_their_parents() -> None:
    answer = realtime(
        input_token_details={
            "text_tokens": 40,
            "audio_tokens": 60,
            "cached_tokens": 16,
            "cached_tokens_details": {"text_tokens": 16, "audio_tokens": 0},
        },
        output_token_details={"text_tokens": 10, "audio_tokens": 40},
    )
    assert read("openai", "realtime", answer) == CanonicalUsage(
        input_tokens=100,
        output_tokens=50,
        cache_read_tokens=16,
        input_audio_tokens=60,
        output_audio_tokens=40,
    )


@pytest.mark.parametrize(
    "details",
    [
        {"audio_tokens": 60, "cached_tokens": 16},
        {"audio_tokens": 60, "cached_tokens": 16, "cached_tokens_details": {"audio_tokens": 16}},
        {"audio_tokens": 160},
        {"audio_tokens": "60"},
    ],
)
def test_realtime_s_counts_that_cannot_be_told_apart_are_refused(details: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read("openai", "realtime", realtime(input_token_details=details))
