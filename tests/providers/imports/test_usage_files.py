"""Exports of usage from elsewhere: what each says, and what happens to what is wrong in them."""

import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.usage import CanonicalUsage
from providers.imports import usage_files
from providers.imports.usage_files import UsageFileRefused, read

ANTHROPIC = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,"
    "usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
    "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,"
    "web_search_count,inference_geo,speed\n"
    "2026-03-22,claude-sonnet-4-20250514,key,Default,standard,≤ 200k,9,60,40,3962,50,0,,\n"
    "2026-03-23,claude-sonnet-4-20250514,key,Default,standard,≤ 200k,1,0,0,0,5,0,,\n"
)
OPENROUTER = (
    "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,tokens_reasoning,"
    "tokens_cached,model_permaslug,provider_name,cancelled,app_name\n"
    'gen-a,2026-04-13T10:00:00Z,0.00012,1000,100,30,200,openai/gpt-4o-mini,OpenAI,false,"a, b"\n'
    "gen-b,2026-04-13T11:00:00Z,1.2e-05,10,1,0,0,openai/gpt-4o-mini,OpenAI,false,x\n"
)
OPENAI = (
    "start_time,end_time,project_id,num_model_requests,model,batch,input_tokens,output_tokens,"
    "input_cached_tokens,input_audio_tokens,output_audio_tokens\n"
    "1,2,p,12,gpt-4o-2024-08-06,False,4000,50,3962,0,0\n"
)
LITELLM = [
    {
        "request_id": "a", "model": "gpt-4o", "custom_llm_provider": "openai", "spend": 0.0175,
        "prompt_tokens": 4000, "completion_tokens": 50, "startTime": "2026-03-01",
        "metadata": {"usage_object": {"prompt_tokens_details": {"cached_tokens": 3962}}},
    },
    {
        "request_id": "b", "model": "gemini/gemini-2.5-pro", "custom_llm_provider": "gemini",
        "spend": 1e-06, "prompt_tokens": 10, "completion_tokens": 1, "metadata": "{}",
    },
]  # fmt: skip


def parsed(text: str | bytes) -> usage_files.UsageFile:
    return read(io.BytesIO(text.encode() if isinstance(text, str) else text))


def test_anthropic_s_caches_stand_beside_the_input() -> None:
    found = parsed(ANTHROPIC)
    (used,) = found.models.values()
    assert (used.provider, used.model) == ("anthropic", "claude-sonnet-4-20250514")
    assert used.usage == CanonicalUsage(
        input_tokens=4072,
        output_tokens=55,
        cache_read_tokens=3962,
        cache_write_5m_tokens=60,
        cache_write_1h_tokens=40,
    )
    assert (used.rows, used.paid_pico, found.aggregated) == (2, None, True)


def test_openrouter_s_activity_has_costs_to_the_pico_dollar() -> None:
    found = parsed(OPENROUTER)
    (used,) = found.models.values()
    assert used.usage == CanonicalUsage(
        input_tokens=1010, output_tokens=101, cache_read_tokens=200, reasoning_tokens=30
    )
    assert (used.requests, used.paid_pico, found.aggregated) == (2, 132_000_000, False)


def test_openai_s_cached_tokens_stand_inside_the_input() -> None:
    (used,) = parsed("\ufeff" + OPENAI).models.values()
    assert used.usage == CanonicalUsage(input_tokens=4000, output_tokens=50, cache_read_tokens=3962)
    assert used.requests == 12


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LITELLM),
        json.dumps(LITELLM, indent=2),
        json.dumps({"data": LITELLM}),
        "\n".join(json.dumps(row) for row in LITELLM),
    ],
)
def test_litellm_s_logs_are_read_as_a_list_and_as_lines(text: str) -> None:
    found = parsed(text)
    assert found.models.keys() == {("openai", "gpt-4o"), ("google", "gemini-2.5-pro")}
    used = found.models["openai", "gpt-4o"]
    assert used.usage.cache_read_tokens == 3962
    assert used.paid_pico == 17_500_000_000
    assert found.models["google", "gemini-2.5-pro"].paid_pico == 1_000_000


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"tokens_prompt": "-5"}, "negative input_tokens"),
        ({"tokens_prompt": "NaN"}, "not a count"),
        ({"tokens_prompt": "1e400"}, "not a count"),
        ({"tokens_prompt": "\u0661\u0662"}, "not a count"),
        ({"tokens_prompt": "1.5"}, "not a count"),
        ({"tokens_prompt": "9" * 30}, "not a count"),
        ({"tokens_prompt": ""}, "missing"),
        ({"tokens_cached": "2000"}, "parts of the input exceed"),
        ({"cost_total": "-1"}, "takes something back"),
        ({"cost_total": "1e400"}, "not a sum of money"),
        ({"cost_total": "Infinity"}, "not a sum of money"),
        ({"cost_total": "\uff11"}, "not a sum of money"),
        ({"model_permaslug": ""}, "not a model"),
        ({"model_permaslug": "a\x00b"}, "not a model"),
        ({"model_permaslug": "x" * 500}, "not a model"),
        ({"cancelled": "true", "tokens_completion": ""}, "cancelled"),
    ],
)
def test_a_bad_row_is_listed_with_its_line_and_counts_for_nothing(
    cells: dict[str, str], why: str
) -> None:
    # given
    head, good, _ = OPENROUTER.splitlines()
    plain = good.replace('"a, b"', "x")
    row = {**dict(zip(head.split(","), plain.split(","), strict=True)), **cells}
    # when
    found = parsed("\n".join([head, plain, ",".join(row.values()), plain]))
    # then
    assert (found.rows, found.bad_rows) == (3, 1)
    ((line, reason),) = found.bad
    assert line == 3
    assert why in reason
    (used,) = found.models.values()
    assert (used.usage.input_tokens, used.paid_pico) == (2000, 240_000_000)


def test_another_currency_is_no_dollar() -> None:
    head, row = OPENAI.splitlines()
    found_bad = f"{head},currency\n{row},eur\n{row},USD\n"
    found = parsed(found_bad)
    assert found.bad == [(2, "not in US dollars: 'eur'")]


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "a,b,c\n1,2,3\n", "model,cost,input_tokens,output_tokens,cost\nm,1,2,3,4\n",
     "\x00\x01", "<html>", "[]", "{}", "[1,2]", '{"data":5}', "{",
     OPENAI.splitlines()[0], "[" * 5_000, '"' + "a" * 100],
)  # fmt: skip
def test_what_is_no_export_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(UsageFileRefused):
        parsed(text)


def test_every_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    head, row = OPENAI.splitlines()
    monkeypatch.setattr(usage_files, "ROWS_MAX", 3)
    with pytest.raises(UsageFileRefused, match="more than 3 rows"):
        parsed("\n".join([head, *[row] * 4]))
    monkeypatch.setattr(usage_files, "FILE_BYTES_MAX", 500)
    with pytest.raises(UsageFileRefused, match="larger than 500 bytes"):
        parsed("\n".join([head, "x" * 1_000]))
    monkeypatch.setattr(usage_files, "FILE_BYTES_MAX", 10**6)
    monkeypatch.setattr(usage_files, "LINE_BYTES_MAX", 200)
    monkeypatch.setattr(usage_files, "MODELS_MAX", 1)
    other = row.replace("gpt-4o", "gpt-5")
    found = parsed("\n".join([head, row, other, "y" * 300]))
    assert [why for _, why in found.bad] == ["more than 1 models", "the line is too long"]


@given(st.binary(max_size=400))
def test_no_bytes_break_it(noise: bytes) -> None:
    head = OPENROUTER.splitlines()[0].encode()
    for text in (noise, head + b"\n" + noise, b"[" + noise, b'{"spend":1}\n' + noise):
        try:
            read(io.BytesIO(text))
        except UsageFileRefused:
            continue


words = st.text(max_size=12)
values: Any = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(LITELLM[0])), values, max_size=8), max_size=4)
)
def test_no_log_breaks_it(logs: list[dict[str, Any]]) -> None:
    try:
        found = parsed(json.dumps(logs))
    except UsageFileRefused:
        return
    assert all(used.usage.input_tokens >= 0 for used in found.models.values())
