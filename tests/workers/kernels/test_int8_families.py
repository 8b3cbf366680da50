"""int8 products in the families that the fused decoder does not fit: sparse experts among them."""

from functools import cache
from pathlib import Path

import pytest
import torch

from tests.workers.checkpoints import CONFIGS, write_checkpoint
from tests.workers.engines import make_engine, request, run
from tests.workers.model.test_families import logits_of, text
from workers.engine.engine import Engine
from workers.model.fused import FusedModel
from workers.speculation.policy import CostCurve

# Of the spread of the fp32 logits, for the middle token: 8-bit activations are worth that much.
# Not the mean: up to an eighth of the tokens lie so near the edge of a random gate that rounding
# gives them another expert, whose output has nothing to do with the first one's.
NEAR = 0.05
TIE = 0.01
FREE = CostCurve([(1, 60.0), (4096, 60.0)])


@pytest.fixture(scope="module")
def kernel_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    @cache
    def write(name: str) -> Path:
        return write_checkpoint(tmp_path_factory.mktemp(name), name)

    return write


def int8_engine(model_dir: Path, kernel_dir: Path, **limits: object) -> Engine:
    engine = make_engine(model_dir, quantisation="int8", kernel_dir=kernel_dir, **limits)
    if engine.model.precision != "int8":
        pytest.skip("no kernels here")
    return engine


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_near_those_of_fp32(checkpoint, kernel_dir: Path, name: str):
    # given
    model_dir, tokens = checkpoint(name), text()
    wanted = logits_of(make_engine(model_dir).model, tokens, chunks=(90,))

    # when
    model = int8_engine(model_dir, kernel_dir).model
    got = logits_of(model, tokens, chunks=(40, 7, 1, 1, 41))

    # then
    assert not isinstance(model, FusedModel)
    by_token = (got - wanted).abs().mean(-1) / wanted.std()
    assert float(by_token.median()) < NEAR


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen2-moe", "deepseek-v3"])
def test_a_preempted_and_drafted_for_text_is_the_model_s_own(
    checkpoint, kernel_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    # given
    monkeypatch.setattr(Engine, "measure_costs", lambda self: FREE)
    prompts = [text(n)[: n // 2 + 1] * 2 for n in (3, 17, 40, 40, 66)]
    engine = int8_engine(checkpoint(name), kernel_dir, speculation="ngram", kv_blocks=20)
    requests = [request(str(i), p, max_tokens=60, ignore_eos=True) for i, p in enumerate(prompts)]

    # when
    answers = run(engine, requests)

    # then
    assert engine.scheduler.stats.preemptions > 0
    assert sum(answer.usage.drafted for answer in answers) > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = prompt + answer.tokens
        logits = logits_of(engine.model, tokens, chunks=(len(tokens),))[len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
        # Attention and gates are torch's here, whose last bit depends on the company.
        lost = (logits.max(-1).values - chosen) / logits.std()
        assert float(lost.max()) < TIE
