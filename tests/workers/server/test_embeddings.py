import base64
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.workers.servers import MODEL, RunningWorker, running_worker


@pytest.fixture(scope="module")
def worker(tiny_model_dir: Path) -> Iterator[RunningWorker]:
    with running_worker(tiny_model_dir) as running:
        yield running


def embed(worker: RunningWorker, texts: object, **fields: object):
    return worker.client.post("/v1/embeddings", json={"model": MODEL, "input": texts, **fields})


def error(response) -> dict[str, str]:
    return response.json()["error"]


def test_a_vector_is_the_mean_of_transformers_last_states(
    worker: RunningWorker, tiny_model_dir: Path
):
    # given: one text of several chunks, one short
    texts = ["a long text of several chunks " * 4, "hi"]
    model = LlamaForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)

    # when
    body = embed(worker, texts).json()

    # then
    assert [item["index"] for item in body["data"]] == [0, 1]
    for text, item in zip(texts, body["data"], strict=True):
        tokens = worker.engine.tokenizer.encode(text)
        with torch.inference_mode():
            states = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0]
        wanted = torch.nn.functional.normalize(states.mean(0), dim=0)
        assert torch.allclose(torch.tensor(item["embedding"]), wanted, atol=1e-5)
    tokens = sum(len(text) for text in texts)
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_base64_holds_the_same_numbers(worker: RunningWorker):
    [plain] = embed(worker, "hi").json()["data"]
    [packed] = embed(worker, "hi", encoding_format="base64").json()["data"]
    raw = base64.b64decode(packed["embedding"])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(plain["embedding"])


def test_an_embedding_computes_its_prompt_and_nothing_else(worker: RunningWorker):
    before = worker.engine.metrics.totals.output_tokens
    embed(worker, "abc")
    assert worker.engine.metrics.totals.output_tokens == before
    assert worker.engine.pool.usage == 0.0


@pytest.mark.parametrize(
    ("texts", "fields", "param"),
    [
        ("", {}, "input"),
        ([], {}, "input"),
        ([[300]], {}, "input"),
        (5, {}, "input"),
        (["a"] * 65, {}, "input"),
        ("x" * 600, {}, "input"),
        ("a", {"dimensions": 8}, "dimensions"),
        ("a", {"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused(worker: RunningWorker, texts, fields, param: str):
    response = embed(worker, texts, **fields)
    assert response.status_code == 400
    assert error(response)["param"] == param


def test_numbers_that_are_none_are_a_server_error(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    with running_worker(tiny_model_dir) as worker:
        embedding = worker.engine.model._embedding.clone()
        embedding[worker.engine.tokenizer.encode("n")[0]] = float("nan")
        monkeypatch.setattr(worker.engine.model, "_embedding", embedding)
        response = embed(worker, ["ant", "bee"])
        assert response.status_code == 500
        assert error(response)["code"] == "generation_failed"
        assert embed(worker, "bee").status_code == 200
