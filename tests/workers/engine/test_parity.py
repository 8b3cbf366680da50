"""Greedy text equals transformers' own, whatever is batched, drafted, chunked or preempted."""

from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.workers.engines import make_engine, request, run
from workers.engine.engine import Engine

REAL_PROMPTS = (
    "Copy this line twice: the quick brown fox jumps over the lazy dog.",
    "What is the capital of France?",
    "Rename x to total:\ndef f(items):\n    x = 0\n    for i in items:\n        x += i\n",
)
# The reference and the engine add in different orders: a tie closer than this may fall either way.
LOGIT_TOLERANCE = 2e-3


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    lengths = [1, 3, 9, 17, 40, 64, 75, 90][:count]
    plain = [torch.randint(2, 258, (n,), generator=generator).tolist() for n in lengths]
    # A phrase that repeats gives prompt lookup something to find.
    return [tokens[: len(tokens) // 2 + 1] * 2 for tokens in plain]


@cache
def oracle(model_dir: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(model_dir, local_files_only=True).eval()


@torch.no_grad()
def assert_greedy(model_dir: Path, prompt: list[int], tokens: list[int]) -> None:
    """Every token is the reference's best one (or within rounding of it) after those before."""
    logits = oracle(model_dir)(torch.tensor([prompt + tokens])).logits[0]
    for index, token in enumerate(tokens):
        row = logits[len(prompt) - 1 + index]
        assert float(row.max() - row[token]) <= LOGIT_TOLERANCE, f"token {index} differs"


@pytest.mark.parametrize("speculation", ["off", "ngram"])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_a_batch_gives_the_reference_text(tiny_model_dir: Path, count: int, speculation: str):
    # given
    engine = make_engine(tiny_model_dir, speculation=speculation)
    batch = prompts(count)

    # when
    answers = run(engine, [request(str(i), p, ignore_eos=True) for i, p in enumerate(batch)])

    # then
    for prompt, answer in zip(batch, answers, strict=True):
        assert len(answer.tokens) == 24
        assert_greedy(tiny_model_dir, prompt, answer.tokens)


@pytest.mark.parametrize("speculation", ["off", "ngram"])
def test_preempted_requests_give_the_reference_text(tiny_model_dir: Path, speculation: str):
    # given: room for about two of the six requests
    engine = make_engine(tiny_model_dir, speculation=speculation, kv_blocks=28)
    batch = prompts(8)[2:]

    # when
    answers = run(
        engine,
        [request(str(i), p, max_tokens=60, ignore_eos=True) for i, p in enumerate(batch)],
    )

    # then
    assert engine.scheduler.stats.preemptions > 0
    for prompt, answer in zip(batch, answers, strict=True):
        assert len(answer.tokens) == 60
        assert_greedy(tiny_model_dir, prompt, answer.tokens)


def test_a_cached_prefix_gives_the_reference_text(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir)
    prompt = prompts(8)[6]
    run(engine, [request("first", prompt, ignore_eos=True)])

    # when
    [answer] = run(engine, [request("second", prompt, ignore_eos=True)])

    # then
    assert answer.usage.cached_tokens == (len(prompt) - 1) // 8 * 8
    assert_greedy(tiny_model_dir, prompt, answer.tokens)


def test_a_random_model_accepts_drafts_and_rejects_drafts(tiny_model_dir: Path):
    """The parity tests above mean nothing if no draft was ever verified."""
    # given
    engine = make_engine(tiny_model_dir, speculation="ngram")

    # when
    answers = run(
        engine,
        [request(str(i), p, max_tokens=80, ignore_eos=True) for i, p in enumerate(prompts(8))],
    )

    # then
    drafted = sum(answer.usage.drafted for answer in answers)
    accepted = sum(answer.usage.accepted for answer in answers)
    assert 0 < accepted < drafted
    for answer in answers:
        assert answer.usage.completion_tokens == answer.usage.steps + answer.usage.accepted


@pytest.fixture(scope="module")
def real_engines(real_model_dir: Path) -> dict[str, Engine]:
    limits = {"token_budget": 64, "kv_blocks": 64, "block_size": 16}
    return {
        speculation: make_engine(real_model_dir, speculation=speculation, **limits)
        for speculation in ("off", "ngram")
    }


@pytest.mark.parametrize("speculation", ["off", "ngram"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_smollm2_gives_the_reference_text(
    real_engines: dict[str, Engine], real_model_dir: Path, speculation: str, batch_size: int
):
    # given
    engine = real_engines[speculation]
    texts = [REAL_PROMPTS[i % len(REAL_PROMPTS)] for i in range(batch_size)]
    batch = [engine.tokenizer.encode_chat([{"role": "user", "content": text}]) for text in texts]

    # when
    answers = run(
        engine,
        [request(str(i), p, max_tokens=24, salt=str(i)) for i, p in enumerate(batch)],
        check=False,
    )

    # then
    for prompt, answer in list(zip(batch, answers, strict=True))[-3:]:
        assert_greedy(real_model_dir, prompt, answer.tokens)


def test_smollm2_survives_preemption_with_the_reference_text(real_model_dir: Path):
    # given: eight answers that together need more blocks than there are
    engine = make_engine(
        real_model_dir, speculation="ngram", token_budget=64, kv_blocks=20, block_size=16
    )
    prompt = engine.tokenizer.encode_chat([{"role": "user", "content": REAL_PROMPTS[0]}])

    # when
    answers = run(
        engine,
        [request(str(i), prompt, salt=str(i), ignore_eos=True, max_tokens=40) for i in range(4)],
    )

    # then
    assert engine.scheduler.stats.preemptions > 0
    for answer in answers:
        assert_greedy(real_model_dir, prompt, answer.tokens)
