"""What computes less gives the same where it may, and is refused where it cannot be."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workers.checkpoints import write_checkpoint
from tests.workers.engines import Answer, make_engine, request, run
from tests.workers.model.test_families import text
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.model.contextual import PREDICTORS, TOKENS_MAX
from workers.model.shape import UnsupportedModel
from workers.server.__main__ import main
from workers.training.train_contextual import Training
from workers.weights.checkpoint import BadWeights

FILE = "model.safetensors"
LIMITS = {"token_budget": 32, "max_running_requests": 8, "kv_blocks": 96, "block_size": 8}
LAYERS, WIDTH, HIDDEN = 3, 80, 48


def engine_of(folder: Path, **changes: object) -> Engine:
    return Engine.load(EngineConfig(model_dir=folder, **{**LIMITS, **changes}))


def answers_of(engine: Engine, *, rows: int = 1) -> list[Answer]:
    asked = [request(str(i), text(20 + i), max_tokens=30, ignore_eos=True) for i in range(rows)]
    return run(engine, asked)


@pytest.fixture
def half_silent_dir(tmp_path: Path) -> Path:
    """An OPT whose odd neurons never fire, with predictors that know it."""
    folder = write_checkpoint(tmp_path, "opt")
    tensors = load_file(folder / FILE)
    for index in range(LAYERS):
        tensors[f"model.decoder.layers.{index}.fc1.weight"][1::2] = 0
        tensors[f"model.decoder.layers.{index}.fc1.bias"][1::2] = -1
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    guesses = {}
    for index in range(LAYERS):
        guesses[f"{index}.down"] = torch.zeros(4, HIDDEN)
        guesses[f"{index}.up"] = torch.zeros(WIDTH, 4)
        guesses[f"{index}.bias"] = torch.tensor([1.0, -1.0]).repeat(WIDTH // 2)
    save_file(guesses, folder / PREDICTORS)
    return folder


@pytest.mark.parametrize("rows", [1, TOKENS_MAX, TOKENS_MAX + 2])
def test_leaving_out_silent_neurons_changes_nothing(half_silent_dir: Path, rows: int):
    whole = answers_of(make_engine(half_silent_dir), rows=rows)
    sparse = answers_of(engine_of(half_silent_dir, contextual_sparsity=True), rows=rows)
    assert [answer.tokens for answer in sparse] == [answer.tokens for answer in whole]


def test_leaving_out_neurons_that_fire_changes_the_text(half_silent_dir: Path):
    """The test above means nothing if predictions were not followed."""
    # given: predictors that leave out the other half
    guesses = load_file(half_silent_dir / PREDICTORS)
    flipped = {name: -guess if "bias" in name else guess for name, guess in guesses.items()}
    save_file(flipped, half_silent_dir / PREDICTORS)

    # then
    whole = answers_of(make_engine(half_silent_dir))
    sparse = answers_of(engine_of(half_silent_dir, contextual_sparsity=True))
    assert sparse[0].tokens != whole[0].tokens


DOCUMENTS = [f"for item_{i} in items:\n    total += item_{i}.price\n" * 10 for i in range(16)]


def test_trained_predictors_find_what_fires(tmp_path: Path):
    # given
    folder = write_checkpoint(tmp_path, "opt")

    # when
    report = Training(folder, DOCUMENTS).run(0.03, progress=lambda line: None)

    # then
    assert report.recall == pytest.approx(0.99, abs=0.005)
    assert report.firing < report.kept < 1
    assert report.loss_contextual == pytest.approx(report.loss_dense, rel=0.2)
    [answer] = answers_of(engine_of(folder, contextual_sparsity=True))
    assert len(answer.tokens) == 30


def test_models_that_are_not_relu_are_refused(tiny_model_dir: Path):
    with pytest.raises(UnsupportedModel, match="needs a ReLU model"):
        engine_of(tiny_model_dir, contextual_sparsity=True)
    with pytest.raises(UnsupportedModel, match="needs ReLU"):
        Training(tiny_model_dir, DOCUMENTS)


def test_predictors_that_do_not_fit_are_named(half_silent_dir: Path):
    # given
    path = half_silent_dir / PREDICTORS
    guesses = load_file(path)

    # then
    save_file({**guesses, "1.bias": torch.zeros(WIDTH + 1)}, path)
    with pytest.raises(BadWeights, match="layer 1 has the shape of another model"):
        engine_of(half_silent_dir, contextual_sparsity=True)
    path.write_bytes(b"no tensors")
    with pytest.raises(BadWeights, match="damaged or of another model"):
        engine_of(half_silent_dir, contextual_sparsity=True)
    path.unlink()
    with pytest.raises(BadWeights, match="run python -m workers.training.train_contextual"):
        engine_of(half_silent_dir, contextual_sparsity=True)


@pytest.fixture
def shallow_dir(tmp_path: Path) -> Path:
    """A Llama whose last layer adds nothing: leaving before it is exact."""
    folder = write_checkpoint(tmp_path, "llama")
    tensors = load_file(folder / FILE)
    tensors["model.layers.2.self_attn.o_proj.weight"].zero_()
    tensors["model.layers.2.mlp.down_proj.weight"].zero_()
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("rows", [1, 3])
def test_leaving_before_a_layer_that_adds_nothing_changes_nothing(shallow_dir: Path, rows: int):
    # given: an exit that is always taken, and never
    whole = answers_of(make_engine(shallow_dir), rows=rows)
    always = engine_of(shallow_dir, exit_layer=2, exit_confidence=1e-6)
    never = engine_of(shallow_dir, exit_layer=2, exit_confidence=1.0)

    # then
    for engine in (always, never):
        found = answers_of(engine, rows=rows)
        assert [answer.tokens for answer in found] == [answer.tokens for answer in whole]
    assert always.model.exits == always.model.steps > 0
    assert never.model.exits < never.model.steps


def test_skipped_layers_get_keys_and_values(shallow_dir: Path):
    """What comes after reads them: here they are those of the whole model."""
    # given: the last layer adds nothing, so its keys and values do not depend on the exits
    engine = engine_of(shallow_dir, exit_layer=2, exit_confidence=1e-6)
    whole = make_engine(shallow_dir)

    # when
    for each in (engine, whole):
        answers_of(each)

    # then
    torch.testing.assert_close(
        engine.forward.cache.blocks, whole.forward.cache.blocks, rtol=1e-4, atol=1e-4
    )


def test_an_unsure_exit_is_not_taken(tiny_model_dir: Path):
    engine = engine_of(tiny_model_dir, exit_layer=1, exit_confidence=0.999)
    [answer] = answers_of(engine)
    assert engine.model.exits == 0
    assert answer.tokens == answers_of(make_engine(tiny_model_dir))[0].tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"exit_layer": -1},
        {"exit_layer": 1, "exit_confidence": 0.0},
        {"exit_layer": 1, "exit_confidence": 1.5},
        {"exit_layer": 1, "speculation": "ngram"},
        {"contextual_sparsity": True, "speculation": "ngram"},
        {"contextual_sparsity": True, "exit_layer": 1},
        {"exit_layer": 1, "quantisation": "int8"},
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object]):
    with pytest.raises(ValueError, match="exit|lossless"):
        EngineConfig(**changes)


def test_an_exit_past_the_last_layer_is_refused(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "m")
    flags = ["--model-dir", str(folder), "--port", "0", "--no-bearer", "--exit-layer"]
    assert main([*flags, "3"]) == 1
    assert "an exit after layer 3 of 3 is none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*flags, "1", "--speculation", "ngram"])
    assert "drafts are lossless" in capsys.readouterr().err


def test_latent_attention_has_no_early_exit(tmp_path: Path):
    folder = write_checkpoint(tmp_path, "deepseek-v2")
    with pytest.raises(UnsupportedModel, match="latent attention"):
        engine_of(folder, exit_layer=1)
