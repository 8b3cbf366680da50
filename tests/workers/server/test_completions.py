from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.workers.engines import make_engine, request, run
from tests.workers.servers import MODEL, RunningWorker, running_worker, sse, until
from workers.engine.sequence import FinishReason

PROMPT = [5, 80, 33, 7, 7, 120, 64, 9] * 6


@pytest.fixture(scope="module")
def worker(tiny_model_dir: Path) -> Iterator[RunningWorker]:
    with running_worker(tiny_model_dir, speculation="ngram") as running:
        yield running


def complete(worker: RunningWorker, **fields: object):
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
    return worker.client.post("/v1/completions", json={**body, **fields})


def error(response) -> dict[str, str]:
    return response.json()["error"]


def reference_logprobs(model_dir: Path, tokens: list[int]) -> torch.Tensor:
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0]
    return torch.log_softmax(logits, -1)


def test_prompt_logprobs_are_those_of_transformers(tiny_model_dir: Path):
    # given: chunks of 32 tokens, and a cached prefix that must not be used
    engine = make_engine(tiny_model_dir)
    run(engine, [request("warm", PROMPT, max_tokens=2)])
    engine.add(request("a", PROMPT, max_tokens=0, prompt_logprobs=3))

    # when
    [ended] = [item for _ in range(9) if engine.has_work for item in engine.step()]

    # then
    wanted = reference_logprobs(tiny_model_dir, PROMPT)
    assert ended.finish_reason is FinishReason.LENGTH
    assert ended.usage.completion_tokens == ended.usage.cached_tokens == 0
    assert len(ended.reading.logprobs) == len(PROMPT) - 1
    for position, entry in enumerate(ended.reading.logprobs):
        assert entry.token == PROMPT[position + 1]
        assert entry.logprob == pytest.approx(float(wanted[position, entry.token]), abs=2e-4)
        assert entry.top[0][1] == pytest.approx(float(wanted[position].max()), abs=2e-4)


def test_preempted_prompts_are_read_anew(tiny_model_dir: Path):
    # given: two prompts that fit only one after the other once both decode
    engine = make_engine(tiny_model_dir, kv_blocks=16)
    wanted = {}
    for name, shift in (("a", 0), ("b", 1)):
        wanted[name] = [(token + shift) % 250 for token in PROMPT]
        engine.add(request(name, wanted[name], max_tokens=30, prompt_logprobs=0, ignore_eos=True))

    # when
    read = {}
    while engine.has_work:
        for item in engine.step():
            if item.reading is not None:
                read[item.request_id] = item.reading

    # then
    assert engine.scheduler.stats.preemptions > 0
    for name, prompt in wanted.items():
        assert [entry.token for entry in read[name].logprobs] == prompt[1:]


def test_echo_puts_the_prompt_before_the_text(worker: RunningWorker):
    plain = complete(worker).json()["choices"][0]["text"]
    echoed = complete(worker, echo=True).json()["choices"][0]
    assert echoed["text"] == "abc" + plain
    assert echoed["logprobs"] is None


def test_logprobs_have_openais_columns(worker: RunningWorker):
    # when
    choice = complete(worker, echo=True, logprobs=2).json()["choices"][0]

    # then
    columns = choice["logprobs"]
    assert columns["tokens"][:3] == ["a", "b", "c"]
    assert {len(columns[name]) for name in columns} == {3 + 5}
    assert columns["token_logprobs"][0] is None
    assert columns["top_logprobs"][0] is None
    assert all(len(top) == 2 for top in columns["top_logprobs"][1:])
    assert columns["text_offset"][:4] == [0, 1, 2, 3]
    for name, value, top in zip(*(list(columns.values())[i][3:] for i in range(3)), strict=True):
        assert top[name] == value == max(top.values())


def test_a_text_can_be_scored_without_writing_any(worker: RunningWorker):
    body = complete(worker, echo=True, logprobs=0, max_tokens=0).json()
    assert body["choices"][0]["text"] == "abc"
    assert body["choices"][0]["finish_reason"] == "length"
    assert len(body["choices"][0]["logprobs"]["token_logprobs"]) == 3
    assert body["usage"]["completion_tokens"] == 0


def test_a_stream_tells_the_same(worker: RunningWorker):
    # given
    fields = {"echo": True, "logprobs": 1, "n": 2, "seed": 4, "temperature": 1}
    whole = complete(worker, **fields).json()["choices"]

    # when
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 5, "ignore_eos": True, "stream": True}
    with worker.client.stream("POST", "/v1/completions", json={**body, **fields}) as response:
        *chunks, end = sse(response)

    # then
    assert end == "[DONE]"
    for choice in whole:
        parts = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        offsets = [o for part in parts if part["logprobs"] for o in part["logprobs"]["text_offset"]]
        assert offsets == choice["logprobs"]["text_offset"]


def test_several_prompts_are_answered_in_order(worker: RunningWorker):
    # given
    prompts = ["abc", "xyz", "abc"]
    alone = [complete(worker, prompt=prompt).json()["choices"][0]["text"] for prompt in prompts]

    # when
    body = complete(worker, prompt=prompts, n=2).json()

    # then
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    assert [choice["text"] for choice in body["choices"]] == [a for a in alone for _ in range(2)]
    assert body["usage"]["prompt_tokens"] == 9
    assert body["usage"]["completion_tokens"] == 30


def test_tokens_are_taken_as_they_are(worker: RunningWorker):
    tokens = worker.engine.tokenizer.encode("abc")
    texts = {
        complete(worker, prompt=prompt).json()["choices"][0]["text"]
        for prompt in ("abc", tokens, [tokens], ["abc"])
    }
    assert len(texts) == 1


def test_openais_default_is_a_short_answer(worker: RunningWorker):
    assert complete(worker, max_tokens=None).json()["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["abc", ""]}, "prompt"),
        ({"prompt": [1, "abc"]}, "prompt"),
        ({"prompt": [258]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[1, 10**30]]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 40, "n": 8}, "n"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
    ],
)
def test_what_is_no_completion_is_refused(worker: RunningWorker, fields, param: str):
    response = complete(worker, **fields)
    assert response.status_code == 400
    assert error(response)["param"] == param
    assert worker.bridge.in_flight == 0


def test_too_long_a_text_is_refused_with_both_lengths(worker: RunningWorker):
    response = complete(worker, prompt=["abc", "b" * 600])
    assert response.status_code == 400
    assert error(response)["code"] == "context_length_exceeded"
    assert error(response)["param"] == "prompt"
    assert "512" in error(response)["message"]
    assert "600" in error(response)["message"]


def test_tokens_and_text_translate_into_each_other(worker: RunningWorker):
    # when
    counted = worker.client.post(
        "/tokenize", json={"model": MODEL, "prompt": "héllo", "return_token_strs": True}
    ).json()
    text = worker.client.post("/detokenize", json={"tokens": counted["tokens"]}).json()

    # then
    assert counted["count"] == len(counted["tokens"]) == len(counted["token_strs"]) == 6
    assert counted["max_model_len"] == 512
    assert text == {"prompt": "héllo"}


def test_a_chat_is_counted_as_it_is_billed(worker: RunningWorker):
    messages = [{"role": "user", "content": "Hello"}]
    counted = worker.client.post("/tokenize", json={"messages": messages}).json()
    billed = worker.chat(messages=messages).json()["usage"]["prompt_tokens"]
    assert counted["count"] == billed


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"model": "gpt-9", "prompt": "a"}, "model"),
        ("/detokenize", {"tokens": [999_999]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
    ],
)
def test_what_cannot_be_counted_is_refused(worker: RunningWorker, path, body, param: str):
    response = worker.client.post(path, json=body)
    assert response.status_code in (400, 404)
    assert error(response)["param"] == param


def test_nothing_is_left_behind(worker: RunningWorker):
    until(lambda: not worker.engine.has_work)
    assert worker.engine.pool.usage == 0.0
