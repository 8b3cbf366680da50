"""The decoder as one call, in int8 and fp32: near torch's, the same text however it is computed."""

import logging
from pathlib import Path

import pytest
import torch

from tests.workers.engines import make_engine, request, run
from workers.cache.attention import Bucket, Span
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.kernels import build
from workers.model.decoder import Batch, Model
from workers.model.fused import FusedModel
from workers.speculation.policy import CostCurve
from workers.weights.linear import PackedLinear, PlainLinear

INT8 = {"quantisation": "int8", "block_size": 16}
TEXT = "Tides come about because the moon pulls at the water of the seas. " * 3


def int8_engine(model_dir: Path, tmp_path: Path, **limits: object) -> Engine:
    engine = make_engine(model_dir, **{**INT8, "kernel_dir": tmp_path, **limits})
    if engine.model.precision != "int8":
        pytest.skip("no kernels here")
    return engine


def fused_engine(model_dir: Path, tmp_path: Path, quantisation: str, **limits: object) -> Engine:
    settings = {"block_size": 16, "kernel_dir": tmp_path, "quantisation": quantisation, **limits}
    engine = make_engine(model_dir, **settings)
    if not isinstance(engine.model, FusedModel):
        pytest.skip("no kernels here")
    return engine


@pytest.fixture(scope="module")
def kernel_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@torch.inference_mode()
def logits_of(model: Model, tokens: list[int], chunks: list[int]) -> torch.Tensor:
    cache = model.new_cache(num_blocks=40, block_size=16)
    blocks = [7, 3, 12, *range(13, 40)]
    parts, position = [], 0
    for count in chunks:
        bucket = Bucket([Span(blocks, position, count)], 0, 16, model.config.group)
        where = range(position, position + count)
        batch = Batch(
            tokens=torch.tensor(tokens[position : position + count]),
            positions=torch.tensor(where),
            slots=torch.tensor([blocks[i // 16] * 16 + i % 16 for i in where]),
            buckets=[bucket],
            logit_rows=torch.arange(count),
        )
        parts.append(model.forward(batch, cache))
        position += count
    return torch.cat(parts)


def random_tokens(count: int) -> list[int]:
    return torch.randint(2, 258, (count,), generator=torch.Generator().manual_seed(3)).tolist()


def repeating(count: int) -> list[list[int]]:
    """Prompts that repeat themselves, so that drafts are found."""
    generator = torch.Generator().manual_seed(5)
    lengths = [1, 3, 9, 17, 40, 64, 75, 90][:count]
    plain = [torch.randint(2, 258, (n,), generator=generator).tolist() for n in lengths]
    return [tokens[: len(tokens) // 2 + 1] * 2 for tokens in plain]


def test_it_is_near_the_fp32_decoder(tiny_model_dir: Path, kernel_dir: Path):
    # given
    tokens = random_tokens(90)
    exact = make_engine(tiny_model_dir).model
    fused = int8_engine(tiny_model_dir, kernel_dir).model
    assert isinstance(fused, FusedModel)

    # when
    wanted = logits_of(exact, tokens, [90])
    got = logits_of(fused, tokens, [90])

    # then
    chances, near = wanted.log_softmax(-1), got.log_softmax(-1)
    divergence = (chances.exp() * (chances - near)).sum(-1)
    assert float(divergence.mean()) < 0.02


def test_in_fp32_it_computes_what_torch_computes(tiny_model_dir: Path, kernel_dir: Path):
    # given
    tokens = random_tokens(90)
    layered = make_engine(tiny_model_dir).model
    fused = fused_engine(tiny_model_dir, kernel_dir, "none").model
    assert not isinstance(layered, FusedModel)

    # when
    wanted = logits_of(layered, tokens, [90])
    got = logits_of(fused, tokens, [40, 7, 1, 42])

    # then
    assert (fused.precision, fused.linear_kind[:4]) == ("float32", "fp32")
    assert float((got - wanted).abs().max()) < 1e-4 * float(wanted.std())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("quantisation", ["int8", "none"])
def test_chunks_change_no_bit(
    tiny_model_dir: Path, kernel_dir: Path, quantisation: str, threads: int
):
    # given
    tokens = random_tokens(60)
    model = fused_engine(tiny_model_dir, kernel_dir, quantisation, threads=threads).model
    whole = logits_of(model, tokens, [60])

    # then
    for chunks in ([1] * 60, [40, 7, 1, 12], [16, 16, 28]):
        assert torch.equal(logits_of(model, tokens, chunks), whole)


def test_a_shallow_pass_is_the_first_layers(tiny_model_dir: Path, kernel_dir: Path):
    # given
    fused = int8_engine(tiny_model_dir, kernel_dir).model
    layered = Model.hidden_states
    batch = Batch(
        tokens=torch.tensor([5, 9]),
        positions=torch.arange(2),
        slots=torch.arange(16, 18),
        buckets=[Bucket([Span([1], 0, 2)], 0, 16, fused.config.group)],
        logit_rows=torch.arange(2),
    )
    cache = fused.new_cache(num_blocks=4, block_size=16)

    # then: the same products layer by layer, up to rounding
    for depth in (0, 1, 2, 3, None):
        other = fused.new_cache(num_blocks=4, block_size=16)
        wanted = layered(fused, batch, other, depth=depth)
        torch.testing.assert_close(
            fused.hidden_states(batch, cache, depth=depth), wanted, rtol=0.05, atol=0.05
        )


@pytest.mark.parametrize("limits", [{}, {"kv_blocks": 14}, {"threads": 2}])
@pytest.mark.parametrize("quantisation", ["int8", "none"])
def test_drafts_batches_and_preemption_change_no_token(
    tiny_model_dir: Path,
    kernel_dir: Path,
    quantisation: str,
    limits: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
):
    # given: steps that cost the same at any length, so that drafts are sent
    monkeypatch.setattr(Engine, "measure_costs", lambda self: CostCurve([(1, 1.0), (64, 1.0)]))
    plain = fused_engine(tiny_model_dir, kernel_dir, quantisation, max_running_requests=1)
    drafted = fused_engine(tiny_model_dir, kernel_dir, quantisation, speculation="ngram", **limits)
    phrases = repeating(8)

    def requests():
        return [
            request(str(i), phrase, max_tokens=80, ignore_eos=True)
            for i, phrase in enumerate(phrases)
        ]

    # when
    wanted = [run(plain, [one])[0].tokens for one in requests()]
    answers = run(drafted, requests())

    # then
    assert [answer.tokens for answer in answers] == wanted
    assert sum(answer.usage.accepted for answer in answers) > 0
    assert (drafted.scheduler.stats.preemptions > 0) == ("kv_blocks" in limits)


def test_smollm2_says_nearly_what_fp32_says(real_model_dir: Path, kernel_dir: Path):
    # given
    exact = make_engine(real_model_dir, block_size=16)
    model = int8_engine(real_model_dir, kernel_dir).model
    tokens = exact.tokenizer.encode(TEXT)

    # when
    wanted = logits_of(exact.model, tokens, [len(tokens)])
    got = logits_of(model, tokens, [len(tokens)])

    # then
    assert float((wanted.argmax(-1) == got.argmax(-1)).float().mean()) > 0.85


def test_nan_fails_its_request_only(tiny_model_dir: Path, kernel_dir: Path):
    # given: a key of the first request's first token that is not finite
    engine = int8_engine(tiny_model_dir, kernel_dir)
    prompts = [random_tokens(40), random_tokens(41)[1:]]
    wanted = run(int8_engine(tiny_model_dir, kernel_dir), [request("b", prompts[1])])[0].tokens
    for name, prompt in zip("ab", prompts, strict=True):
        engine.add(request(name, prompt, ignore_eos=True))
    sequences = list(engine.scheduler.waiting)
    engine.step()
    poisoned = next(s for s in sequences if s.request.request_id == "a")
    engine.forward.cache.blocks[:, poisoned.table.block_ids[0]] = float("nan")

    # when
    ended: dict[str, object] = {}
    tokens: list[int] = []
    while engine.has_work:
        for progress in engine.step():
            ended[progress.request_id] = progress.finish_reason
            if progress.request_id == "b":
                tokens += [entry.token for entry in progress.logprobs]

    # then
    assert str(ended["a"]) != str(ended["b"])
    assert tokens[: len(wanted)] == wanted


@pytest.mark.parametrize("quantisation", ["int8", "none"])
def test_without_a_compiler_torch_serves_fp32_and_the_log_says_so(
    tiny_model_dir: Path,
    tmp_path: Path,
    quantisation: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    # given
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))

    # when
    with caplog.at_level(logging.INFO):
        engine = Engine.load(
            EngineConfig(model_dir=tiny_model_dir, quantisation=quantisation, kernel_dir=tmp_path)
        )

    # then
    assert engine.model.precision == "float32"
    assert engine.model.linear_kind in (PackedLinear.kind, PlainLinear.kind)
    assert "no-such-compiler" in caplog.text


def test_a_shape_that_does_not_fit_runs_layer_by_layer(
    tiny_model_dir: Path, kernel_dir: Path, caplog: pytest.LogCaptureFixture
):
    # when
    with caplog.at_level(logging.WARNING):
        engine = int8_engine(tiny_model_dir, kernel_dir, block_size=8)
    [answer] = run(engine, [request("one", random_tokens(20))])

    # then
    assert not isinstance(engine.model, FusedModel)
    assert engine.model.precision == "int8"
    assert "blocks must have 16 tokens" in caplog.text
    assert answer.tokens


def test_every_kind_has_a_name_of_its_own(tiny_model_dir: Path, kernel_dir: Path):
    """Calibrations are kept by it."""
    kinds = {
        make_engine(tiny_model_dir).model.linear_kind,
        fused_engine(tiny_model_dir, kernel_dir, "none").model.linear_kind,
        int8_engine(tiny_model_dir, kernel_dir).model.linear_kind,
        int8_engine(tiny_model_dir, kernel_dir, block_size=8).model.linear_kind,
    }
    assert len(kinds) == 4
