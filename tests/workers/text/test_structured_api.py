import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.servers import RunningWorker, chat_body, running_worker, sse


@pytest.fixture(scope="module")
def worker(tiny_model_dir: Path) -> Iterator[RunningWorker]:
    with running_worker(tiny_model_dir, speculation="ngram") as running:
        yield running


def error(response) -> dict[str, str]:
    return response.json()["error"]


def schema_format(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_an_answer_follows_its_schema_whole_and_streamed(worker: RunningWorker):
    # given
    schema = {
        "type": "object",
        "properties": {"zoo": {"enum": ["ape", "bee"]}, "age": {"type": "boolean"}},
        "required": ["zoo", "age"],
        "additionalProperties": False,
    }
    wanted = {"response_format": schema_format(schema), "max_tokens": 90, "ignore_eos": False}

    # when
    choice = worker.chat(**wanted).json()["choices"][0]
    with worker.client.stream(
        "POST", "/v1/chat/completions", json=chat_body(stream=True, **wanted)
    ) as response:
        *chunks, _ = sse(response)

    # then
    answer = json.loads(choice["message"]["content"])
    assert list(answer) == ["zoo", "age"]
    assert answer["zoo"] in ("ape", "bee")
    assert choice["finish_reason"] == "stop"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == choice["message"]["content"]


def test_a_json_object_starts_as_one(worker: RunningWorker):
    body = worker.chat(response_format={"type": "json_object"}, max_tokens=20).json()
    assert body["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.parametrize(
    "schema", [{"type": "foo"}, {"not": {"type": "null"}}, {"$ref": "#/x"}, [], 5, "{"]
)
def test_a_schema_that_cannot_be_kept_is_refused(worker: RunningWorker, schema: object):
    response = worker.chat(response_format=schema_format(schema))
    assert response.status_code == 400
    assert error(response)["code"] == "invalid_json_schema"
    assert error(response)["param"] == "response_format"
    assert worker.bridge.in_flight == 0


def test_an_answer_may_not_be_held_open_under_a_schema(worker: RunningWorker):
    response = worker.chat(response_format={"type": "json_object"}, min_tokens=3)
    assert response.status_code == 400
    assert error(response)["param"] == "min_tokens"
