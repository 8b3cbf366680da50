"""Which listings are the same weights. A wrong merge would put a wrong seller on a board."""

import pytest

from providers.market.model_names import creator_of, name_of, title_of


@pytest.mark.parametrize(
    ("provider", "listed", "slug"),
    [
        ("groq", "llama-3.3-70b-versatile", "llama-3.3-70b-instruct"),
        ("cerebras", "llama-3.3-70b", "llama-3.3-70b-instruct"),
        ("ovhcloud", "Meta-Llama-3_3-70B-Instruct", "llama-3.3-70b-instruct"),
        ("databricks", "databricks-meta-llama-3-3-70b-instruct", "llama-3.3-70b-instruct"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "llama-3.3-70b-instruct"),
        ("cloudflare", "@cf/meta/llama-3.3-70b-instruct-fp8-fast", "llama-3.3-70b-instruct"),
        ("aws", "meta.llama3-1-8b-instruct-v1:0", "llama-3.1-8b-instruct"),
        ("fireworks", "llama-v3p1-8b-instruct", "llama-3.1-8b-instruct"),
        ("aws", "global.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4.5"),
        ("anthropic", "claude-haiku-4-5", "claude-haiku-4.5"),
        ("google", "claude-4-opus", "claude-opus-4"),
        ("anthropic", "claude-opus-4-0", "claude-opus-4"),
        ("fireworks", "kimi-k2p7-code-fast", "kimi-k2.7-code"),
    ],
)
def test_listings_of_one_model_share_a_slug(provider: str, listed: str, slug: str) -> None:
    assert name_of(provider, listed).slug == slug


@pytest.mark.parametrize(
    ("provider", "one", "other"),
    [
        ("openai", "gpt-4", "gpt-4-turbo"),
        ("openai", "gpt-4o", "gpt-4o-2024-05-13"),
        ("openai", "gpt-5.6-sol", "gpt-5.6-luna"),
        ("aws", "regional.anthropic.claude-3-5-sonnet-20240620-v1:0",
         "regional.anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("x-ai", "grok-4", "grok-4-fast"),
        ("together", "deepseek-ai/DeepSeek-V4.1-Flash", "deepseek-ai/DeepSeek-V4-Pro-0813"),
    ],
)  # fmt: skip
def test_different_models_keep_different_slugs(provider: str, one: str, other: str) -> None:
    assert name_of(provider, one).slug != name_of(provider, other).slug


def test_a_quantised_fast_serving_is_a_variant_of_the_same_model() -> None:
    # when
    name = name_of("cloudflare", "@cf/meta/llama-3.1-8b-instruct-fp8-fast")

    # then
    assert (name.slug, name.variant, name.quantization) == ("llama-3.1-8b-instruct", "fast", "fp8")


def test_a_free_listing_is_a_variant() -> None:
    assert name_of("openrouter", "qwen/qwq-32b:free").variant == "free"


def test_a_fine_tune_is_not_its_base_model() -> None:
    assert name_of("openai", "ft:gpt-4o").slug == "ft-gpt-4o"


def test_names_for_people() -> None:
    assert title_of("llama-3.3-70b-instruct") == "Llama 3.3 70B Instruct"
    assert title_of("smollm2-135m-instruct") == "SmolLM2 135M Instruct"
    assert creator_of("llama-3.3-70b-instruct") == "Meta"
    assert creator_of("no-such-family") == ""
