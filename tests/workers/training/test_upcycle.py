"""An upcycled model gives its dense source's own bits, until it is trained; then experts differ."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.workers.checkpoints import write_checkpoint
from tests.workers.engines import make_engine, request, run
from tests.workers.model.test_families import logits_of, text
from workers.model.decoder import load_model
from workers.training.finetune import REPORT, STATE, Finetuning
from workers.training.upcycle import MARKER, CannotUpcycle, main, upcycle


@pytest.mark.parametrize(("experts", "top_k"), [(2, 1), (2, 2), (4, 2), (8, 4), (16, 4)])
def test_the_upcycled_model_gives_the_dense_model_s_bits(
    tiny_model_dir: Path, tmp_path: Path, experts: int, top_k: int
):
    # given
    upcycle(tiny_model_dir, tmp_path / "sparse", experts=experts, top_k=top_k)
    dense, sparse = load_model(tiny_model_dir), load_model(tmp_path / "sparse")

    # then: whatever is computed together
    for chunks in ((90,), (40, 7, 1, 1, 41)):
        wanted = logits_of(dense, text(), chunks=chunks)
        assert torch.equal(logits_of(sparse, text(), chunks=chunks), wanted)


def test_transformers_reads_it_as_a_mixtral(tiny_model_dir: Path, tmp_path: Path):
    upcycle(tiny_model_dir, tmp_path / "sparse", experts=4, top_k=2)
    sparse = AutoModelForCausalLM.from_pretrained(tmp_path / "sparse").eval()
    dense = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.no_grad():
        tokens = torch.tensor([text(30)])
        torch.testing.assert_close(sparse(tokens).logits, dense(tokens).logits)


@pytest.mark.parametrize(("experts", "top_k"), [(4, 3), (6, 2), (2, 4), (128, 2), (0, 1)])
def test_numbers_that_would_not_be_bit_equal_are_refused(
    tiny_model_dir: Path, tmp_path: Path, experts: int, top_k: int
):
    with pytest.raises(CannotUpcycle, match="would not be bit-equal"):
        upcycle(tiny_model_dir, tmp_path / "sparse", experts=experts, top_k=top_k)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["qwen2", "mixtral", "opt", "llama-biased"])
def test_other_families_are_refused(tmp_path: Path, name: str):
    (tmp_path / "source").mkdir()
    source = write_checkpoint(tmp_path / "source", name)
    with pytest.raises(CannotUpcycle, match="only a Llama without biases"):
        upcycle(source, tmp_path / "sparse", experts=4, top_k=2)


def test_an_existing_folder_stays_as_it_is(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine").write_text("precious")
    assert main(["--source", str(tiny_model_dir), "--target", str(tmp_path / "mine")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.fixture
def real_sparse_dir(real_model_dir: Path, tmp_path: Path) -> Iterator[Path]:
    """SmolLM2 with two experts, as large as it is: taken away again."""
    upcycle(real_model_dir, tmp_path / "sparse", experts=2, top_k=2)
    yield tmp_path / "sparse"
    shutil.rmtree(tmp_path / "sparse")


def test_upcycled_smollm2_speaks_the_dense_model_s_text(
    real_model_dir: Path, real_sparse_dir: Path
):
    """Paging, drafts, a shared prefix and experts at once, with trained weights."""
    # given
    settings = {"speculation": "ngram", "kv_blocks": 40, "block_size": 16, "token_budget": 64}
    question = "Repeat this list: alpha, beta, gamma, alpha, beta, gamma."
    answers = []
    for folder in (real_model_dir, real_sparse_dir):
        engine = make_engine(folder, **settings)
        prompt = engine.tokenizer.encode_chat([{"role": "user", "content": question}])
        asked = [request(str(i), prompt, max_tokens=24, salt="s") for i in range(2)]
        answers.append([answer.tokens for answer in run(engine, asked, check=False)])

    # then
    assert answers[0] == answers[1]
    assert json.loads((real_sparse_dir / MARKER).read_text())["trained_steps"] == 0


DOCUMENTS = [f"def add_{i}(a, b):\n    return a + b + {i}\n" * 12 for i in range(16)]


class Minutes:
    """A clock of CPU seconds that moves on by `seconds` at each look."""

    def __init__(self, seconds: float) -> None:
        self._now, self._seconds = 0.0, seconds

    def __call__(self) -> float:
        self._now += self._seconds
        return self._now


@pytest.fixture
def sparse_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    upcycle(tiny_model_dir, tmp_path / "sparse", experts=4, top_k=2)
    return tmp_path / "sparse"


def silent(line: str) -> None:
    return


def test_training_lowers_the_held_out_loss_and_parts_the_experts(sparse_dir: Path):
    # when
    run = Finetuning(sparse_dir, DOCUMENTS, layers=2)
    report = run.run(1.0, progress=silent, clock=Minutes(1.0))

    # then
    assert report.steps >= 10
    assert report.loss_after < report.loss_before
    assert report.divergence > 0
    assert sum(report.expert_shares) == pytest.approx(1, abs=0.01)
    assert json.loads((sparse_dir / REPORT).read_text())["steps"] == report.steps
    assert json.loads((sparse_dir / MARKER).read_text())["trained_steps"] == report.steps

    # then: the trained folder is a model like any other, and its first layers are untouched
    tensors = {}
    for path in sparse_dir.glob("*.safetensors"):
        tensors |= load_file(path)
    experts = "model.layers.{}.block_sparse_moe.experts.{}.w1.weight"
    assert torch.equal(tensors[experts.format(0, 0)], tensors[experts.format(0, 1)])
    assert not torch.equal(tensors[experts.format(2, 0)], tensors[experts.format(2, 1)])
    wanted = AutoModelForCausalLM.from_pretrained(sparse_dir).eval()
    with torch.no_grad():
        reference = wanted(torch.tensor([text(40)])).logits[0]
    got = logits_of(load_model(sparse_dir), text(40), chunks=(40,))
    torch.testing.assert_close(got, reference, rtol=1e-4, atol=1e-4 * float(reference.std()))


def test_a_run_that_was_cut_off_goes_on_where_it_was(sparse_dir: Path, tmp_path: Path):
    # given: the same run twice, one of them stopped after a saved state
    shutil.copytree(sparse_dir, tmp_path / "whole")

    def stop_at_step_20(line: str) -> None:
        if line.startswith("step 20"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Finetuning(sparse_dir, DOCUMENTS, layers=1).run(
            9.0, progress=stop_at_step_20, clock=Minutes(9.0)
        )
    saved_at = torch.load(sparse_dir / STATE, weights_only=True)["steps"]
    assert 0 < saved_at < 20

    # when
    resumed = Finetuning(sparse_dir, DOCUMENTS, layers=1)
    lines: list[str] = []
    report = resumed.run(9.0, progress=lines.append, clock=Minutes(9.0))

    # then
    assert lines[0].endswith(f"step {saved_at}")
    whole = Finetuning(tmp_path / "whole", DOCUMENTS, layers=1).run(
        9.0, progress=silent, clock=Minutes(9.0)
    )
    assert report.loss_before == whole.loss_before
    assert report.steps > 20
    assert not (sparse_dir / STATE).exists()


def test_a_dense_folder_is_trained_as_the_control(tiny_model_dir: Path, tmp_path: Path):
    shutil.copytree(tiny_model_dir, tmp_path / "dense")
    run = Finetuning(tmp_path / "dense", DOCUMENTS, layers=2)
    report = run.run(1.0, progress=silent, clock=Minutes(2.0))
    assert report.loss_after < report.loss_before
    assert (report.divergence, report.expert_shares) == (0.0, [])
    assert load_model(tmp_path / "dense").config.family == "Llama"


def test_too_little_text_is_said(tiny_model_dir: Path):
    with pytest.raises(ValueError, match="too little text"):
        Finetuning(tiny_model_dir, ["short"], layers=1)
