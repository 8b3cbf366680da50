"""The command that rates others' usage bodies: equal to the last digit, or told why not."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings

from billing.usage import UsageError
from providers.imports import usage_rating
from providers.wires import usage_surfaces
from tests.providers.ground_truth import WHEN

BODIES = Path(__file__).parents[2] / "data" / "usage_bodies.json"
MOMENT = WHEN.isoformat()


def test_every_reading_of_every_body_is_equal_or_explained() -> None:
    # when
    rows = usage_rating.decode(BODIES.read_bytes())
    found = list(usage_rating.verdicts(rows, when=WHEN))
    # then
    plain = (usage_rating.SAME, usage_rating.SKIPPED)
    odd = Counter((v.kind, v.why[:32]) for v in found if v.kind not in plain)
    assert usage_rating.tally(found)[usage_rating.SAME] == 1_357
    assert usage_rating.tally(found)[usage_rating.SKIPPED] == 178
    # Every row is rated at a seller or named with its reason.
    assert {v.row for v in found} == set(range(1, len(rows) + 1))
    assert odd == {
        ("not billed", "searches have no price"): 18,
        ("not billed", "no surface is called embeddings"): 6,
        ("not billed", "pictures in the output have no p"): 5,
        ("not billed", "passes of type advisor_message h"): 4,
        ("not billed", "audio input has no price at this"): 2,
        ("not billed", "citations, searches and tools of"): 1,
        ("not billed", "total_tokens is 109, but 35 and "): 1,
        ("different", ""): 3,  # one conversation of several passes, at three sellers
        ("not sold", "no price for tier 0 at 304 input"): 1,
        ("not sold", "openrouter sells no o1-mini-2024"): 1,
    }


def row(usage: dict[str, Any], *, model: str = "gpt-5", flavor: str = "chat") -> dict[str, Any]:
    extractors = [{"provider_id": "openai", "api_flavor": flavor, "input_price": "0"}]
    return {"body": {"model": model, "usage": usage}, "extracted": [{"extractors": extractors}]}


def told(tmp_path: Path, rows: Any, *more: str) -> str:
    file, out = tmp_path / "bodies.json", StringIO()
    file.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    call_command("rate_usage", str(file), "--at", MOMENT, *more, stdout=out)
    return out.getvalue()


def test_the_command_prints_what_differs_and_a_sum(tmp_path: Path) -> None:
    # given
    good = {"prompt_tokens": 4000, "completion_tokens": 50, "total_tokens": 4050,
            "prompt_tokens_details": {"cached_tokens": 3962}}  # fmt: skip
    # when
    said = told(tmp_path, [row(good), row({**good, "total_tokens": 1})])
    # then
    assert said.splitlines() == [
        "row 2 openai/chat gpt-5: not billed, theirs $0.00104275: total_tokens is 1, but 4000 and"
        " 50 make 4050",
        f"2 rows, 2 readings at {WHEN}: not billed 1, same 1",
    ]
    assert "ours $0.00104275" in told(tmp_path, [row(good)], "--all")


def test_a_row_that_is_rated_nowhere_is_named_with_its_reason(tmp_path: Path) -> None:
    # given
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    rows = [
        row(usage, model="no-such-model"),
        {"body": {"model": "gpt-5", "usage": usage}, "extracted": []},
        {"body": {"usage": usage}, "extracted": row(usage)["extracted"]},
    ]
    # when
    said = told(tmp_path, rows)
    # then
    assert said.splitlines() == [
        "row 1 no-such-model: skipped, openai: genai-prices has no such model at this seller",
        "row 2 gpt-5: skipped, it names no seller and surface",
        "row 3 no model: skipped, openai: it names no model",
        f"3 rows, 0 readings at {WHEN}: skipped 3",
    ]


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '[{"model": 1}]', "[" * 3_000])
def test_a_file_of_something_else_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match="not a file of usage bodies"):
        told(tmp_path, text)


def test_a_moment_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no moment"):
        call_command("rate_usage", str(BODIES), "--at", "2027-02-29")


FIELDS = sorted(
    {
        name
        for struct in (
            usage_surfaces.OpenAIUsage,
            usage_surfaces.AnthropicUsage,
            usage_surfaces.ResponsesUsage,
            usage_surfaces.RealtimeUsage,
            usage_surfaces.GeminiUsage,
            usage_surfaces.ConverseUsage,
        )
        for name in struct.__struct_encode_fields__
    }
    | {
        "billed_units",
        "cached_tokens",
        "reasoning_tokens",
        "audio_tokens",
        "modality",
        "tokenCount",
    }
)
scalars = st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=5)
shapes: Any = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(usage_surfaces.READERS)),
    st.sampled_from(["openai", "x-ai", "google", "snowflake", "nobody"]),
    st.dictionaries(st.sampled_from(FIELDS), shapes, max_size=6) | shapes,
)
def test_a_shape_that_nobody_has_seen_is_refused_or_adds_up(
    surface: str, provider: str, counts: Any
) -> None:
    answer = {"usage": counts, "usageMetadata": counts, "response": {"usage": counts}}
    try:
        usage = usage_surfaces.read(provider, surface, answer)
    except UsageError:
        return
    usage.check()
