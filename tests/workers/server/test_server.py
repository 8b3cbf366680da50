import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.servers import (
    BEARER,
    MODEL,
    RunningWorker,
    chat_body,
    running_worker,
    sse,
    until,
)


@pytest.fixture(scope="module")
def worker(tiny_model_dir: Path) -> Iterator[RunningWorker]:
    with running_worker(tiny_model_dir, speculation="ngram") as running:
        yield running


def error(response) -> dict[str, str]:
    return response.json()["error"]


def test_a_chat_answer_has_text_reason_and_usage(worker: RunningWorker):
    # when
    response = worker.chat()

    # then
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == MODEL
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    prompt_tokens = len(worker.engine.tokenizer.encode_chat([{"role": "user", "content": "Hello"}]))
    usage = body["usage"]
    assert usage["prompt_tokens"] == prompt_tokens
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == prompt_tokens + 8
    assert set(usage["speculation"]) == {"drafted", "accepted", "steps"}
    assert usage["speculation"]["steps"] + usage["speculation"]["accepted"] == 8
    assert set(usage["engine_ms"]) == {"queue", "prefill", "decode"}


def test_a_stream_gives_the_same_text_then_usage_then_the_end(worker: RunningWorker):
    # given
    whole = worker.chat(max_tokens=30).json()

    # when
    body = chat_body(max_tokens=30, stream=True, stream_options={"include_usage": True})
    with worker.client.stream("POST", "/v1/chat/completions", json=body) as response:
        events = sse(response)

    # then
    assert response.headers["content-type"] == "text/event-stream"
    *chunks, usage, end = events
    assert end == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 30
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]


def test_a_stream_without_the_option_has_no_usage(worker: RunningWorker):
    with worker.client.stream(
        "POST", "/v1/chat/completions", json=chat_body(stream=True)
    ) as response:
        events = sse(response)
    assert all("usage" not in event for event in events[:-1])


def test_several_choices_share_the_prompt(worker: RunningWorker):
    # when
    body = worker.chat(n=3, temperature=1.2, seed=5).json()

    # then
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in body["choices"]}) == 3
    assert body["usage"]["completion_tokens"] == 24


def test_a_seed_repeats_an_answer(worker: RunningWorker):
    texts = {
        worker.chat(temperature=1.0, seed=42).json()["choices"][0]["message"]["content"]
        for _ in range(3)
    }
    assert len(texts) == 1


def test_logprobs_come_with_each_token(worker: RunningWorker):
    # when
    body = worker.chat(logprobs=True, top_logprobs=2).json()

    # then
    entries = body["choices"][0]["logprobs"]["content"]
    assert len(entries) == 8
    for entry in entries:
        assert len(entry["top_logprobs"]) == 2
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"]
        if not entry["token"].startswith("bytes:"):
            assert bytes(entry["bytes"]).decode() == entry["token"]
    raw = b"".join(bytes(entry["bytes"]) for entry in entries)
    assert raw.decode(errors="replace") == body["choices"][0]["message"]["content"]


def test_text_completion_continues_a_prompt(worker: RunningWorker):
    # when
    body = worker.client.post(
        "/v1/completions",
        json={"model": MODEL, "prompt": "abc", "max_tokens": 5, "ignore_eos": True},
    ).json()

    # then
    assert body["object"] == "text_completion"
    assert body["usage"] | {"engine_ms": 0, "speculation": 0} == {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
        "speculation": 0,
        "engine_ms": 0,
    }


def test_a_final_assistant_message_can_be_continued(worker: RunningWorker):
    # given
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am"}]

    # when
    whole = worker.chat(messages=messages).json()["usage"]["prompt_tokens"]
    body = worker.chat(messages=messages, continue_final_message=True).json()

    # then: neither the end of the turn nor the start of a new one was added
    extra = worker.engine.tokenizer.encode("</s><s>assistant: ")
    assert body["usage"]["prompt_tokens"] == whole - len(extra)


def test_a_tenants_salt_keeps_its_cache_apart(worker: RunningWorker):
    # given
    messages = [{"role": "user", "content": "a secret " * 10}]
    worker.chat(messages=messages, cache_salt="alice")

    # when
    cached = {
        salt: worker.chat(messages=messages, cache_salt=salt).json()["usage"][
            "prompt_tokens_details"
        ]["cached_tokens"]
        for salt in ("alice", "bob")
    }

    # then
    assert cached["alice"] > 80
    assert cached["bob"] == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10_000}, "n"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 1000}}, "logit_bias"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop_token_ids": [999_999]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": list(range(65))}, "stop_token_ids"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 9}, "min_tokens"),
        ({"min_p": 1.5}, "min_p"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"seed": 2**70}, "seed"),
        ({"top_logprobs": 50, "logprobs": True}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_absurd_values_are_refused_by_name(
    worker: RunningWorker, fields: dict[str, object], param: str
):
    # when
    response = worker.chat(**fields)

    # then
    assert response.status_code == 400
    assert error(response)["type"] == "invalid_request_error"
    assert error(response)["param"] == param
    assert worker.bridge.in_flight == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": "x"}]}, "messages"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)
def test_what_would_be_ignored_is_refused(
    worker: RunningWorker, fields: dict[str, object], param: str
):
    response = worker.chat(**fields)
    assert response.status_code == 400
    assert (error(response)["code"], error(response)["param"]) == ("unsupported_parameter", param)


def test_a_stop_token_ends_an_answer_but_not_before_the_fewest(worker: RunningWorker):
    # given: what would come
    entries = worker.chat(logprobs=True).json()["choices"][0]["logprobs"]["content"]
    token = worker.engine.tokenizer.encode(entries[2]["token"])[0]

    # when
    early = worker.chat(stop_token_ids=[token]).json()
    late = worker.chat(stop_token_ids=[token], min_tokens=5).json()

    # then
    first = next(i for i, entry in enumerate(entries) if entry["token"] == entries[2]["token"])
    assert early["usage"]["completion_tokens"] == first + 1
    assert early["choices"][0]["finish_reason"] == "stop"
    assert late["usage"]["completion_tokens"] >= 5


def test_tools_that_may_not_be_used_are_accepted(worker: RunningWorker):
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert worker.chat(tools=tools, tool_choice="none").status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": "tiny", "temperature": NaN}', b"\xff\xfe", b"[" * 100_000],
)
def test_a_body_that_is_no_request_is_refused(worker: RunningWorker, body: bytes):
    response = worker.client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert error(response)["type"] == "invalid_request_error"


def test_too_long_a_prompt_is_refused_with_both_lengths(worker: RunningWorker):
    # given
    messages = [{"role": "user", "content": "x" * 30_000}]
    length = len(worker.engine.tokenizer.encode_chat(messages))

    # when
    response = worker.chat(messages=messages)

    # then
    assert response.status_code == 400
    assert error(response)["code"] == "context_length_exceeded"
    assert "512" in error(response)["message"]
    assert str(length) in error(response)["message"]


def test_an_unknown_model_is_named(worker: RunningWorker):
    response = worker.chat(model="gpt-9")
    assert response.status_code == 404
    assert error(response)["code"] == "model_not_found"
    assert "gpt-9" in error(response)["message"]


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {BEARER}"])
def test_a_wrong_secret_is_refused(worker: RunningWorker, given: str):
    response = worker.client.post(
        "/v1/chat/completions", json=chat_body(), headers={"authorization": given}
    )
    assert response.status_code == 401


def test_an_oversized_body_is_refused(tiny_model_dir: Path):
    with running_worker(tiny_model_dir, server={"max_body_bytes": 1000}) as worker:
        response = worker.client.post("/v1/chat/completions", content=b" " * 1001)
        assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/v1/models", 405), ("GET", "/nowhere", 404)],
)
def test_other_paths_and_methods(worker: RunningWorker, method: str, path: str, status: int):
    assert worker.client.request(method, path).status_code == status


def test_models_health_and_metrics(worker: RunningWorker):
    # given
    worker.chat()

    # then
    [model] = worker.client.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == (MODEL, 512)
    assert worker.client.get("/health", headers={"authorization": ""}).json()["status"] == "ok"
    page = worker.client.get("/metrics").text
    assert "tokenhouse_worker_num_requests_running" in page
    assert worker.client.get("/metrics", headers={"authorization": ""}).status_code == 401


def test_a_full_queue_answers_429_with_retry_after(tiny_model_dir: Path):
    # given: one seat, one waiting place, both taken
    limits = {"max_running_requests": 1, "max_waiting_requests": 1}
    body = chat_body(stream=True, max_tokens=50)
    with running_worker(tiny_model_dir, **limits) as worker:
        with (
            worker.held_after_first_token(),
            worker.client.stream("POST", "/v1/chat/completions", json=body) as first,
            worker.client.stream("POST", "/v1/chat/completions", json=body) as second,
        ):
            # when
            response = worker.chat()

            # then
            assert (first.status_code, second.status_code) == (200, 200)
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) >= 1
            assert error(response)["type"] == "rate_limit_error"
        worker.until_idle()


def test_a_client_that_leaves_frees_its_blocks(worker: RunningWorker):
    # given
    before = worker.engine.metrics.totals.output_tokens
    body = chat_body(stream=True, max_tokens=400)

    # when
    with worker.held_after_first_token():
        with worker.client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            assert worker.bridge.in_flight == 1
        until(lambda: worker.bridge.in_flight == 0)
    worker.until_idle()

    # then
    assert worker.engine.pool.usage == 0.0
    assert worker.engine.metrics.totals.output_tokens - before < 20


def test_a_client_that_leaves_a_plain_call_frees_its_blocks(worker: RunningWorker):
    # given
    before = worker.engine.metrics.totals.output_tokens

    # when
    with worker.held_after_first_token():
        connection = raw_call(worker, chat_body(max_tokens=400))
        until(lambda: worker.engine.metrics.totals.output_tokens > before)
        connection.close()
        until(lambda: worker.bridge.in_flight == 0)
    worker.until_idle()

    # then
    assert worker.engine.pool.usage == 0.0
    assert worker.engine.metrics.totals.output_tokens - before < 20


def raw_call(worker: RunningWorker, body: dict[str, object]) -> socket.socket:
    """A connection with tiny buffers on which the call was sent and nothing is read."""
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BEARER}\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", worker.port))
    connection.sendall(head.encode() + payload)
    return connection


def test_a_client_that_does_not_read_is_cut(tiny_model_dir: Path):
    # given: an answer far larger than all buffers, and little patience
    with running_worker(tiny_model_dir, server={"send_timeout_s": 0.2}) as worker:
        body = chat_body(stream=True, max_tokens=400, logprobs=True, top_logprobs=20, n=8)

        # when: it never reads
        connection = raw_call(worker, body)
        until(lambda: worker.engine.metrics.totals.output_tokens > 0)
        worker.until_idle()

        # then: its end of the connection is gone, and the others are served
        assert worker.engine.pool.usage == 0.0
        assert worker.chat().status_code == 200
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        connection.close()
        assert b"[DONE]" not in received


def test_a_request_that_fails_in_the_engine_is_a_server_error(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # given
    with running_worker(tiny_model_dir) as worker:
        embedding = worker.engine.model._embedding.clone()
        embedding[:] = float("nan")
        monkeypatch.setattr(worker.engine.model, "_embedding", embedding)

        # when
        plain = worker.chat()
        with worker.client.stream(
            "POST", "/v1/chat/completions", json=chat_body(stream=True)
        ) as response:
            events = sse(response)

        # then
        assert plain.status_code == 500
        assert error(plain)["code"] == "generation_failed"
        assert [event["error"]["code"] for event in events] == ["generation_failed"]


def test_a_crash_in_a_step_ends_its_requests_and_the_engine_goes_on(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # given
    with running_worker(tiny_model_dir) as worker:
        hidden_states = worker.engine.model.hidden_states

        def crash(*args: object, **options: object) -> None:
            monkeypatch.setattr(worker.engine.model, "hidden_states", hidden_states)
            raise RuntimeError("a bug")

        monkeypatch.setattr(worker.engine.model, "hidden_states", crash)

        # when
        crashed = worker.chat()

        # then
        assert crashed.status_code == 500
        assert worker.chat().status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_died_is_unhealthy_and_ends_its_calls(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # given: neither the step nor the clean-up works
    with running_worker(tiny_model_dir) as worker:

        def crash(*args: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(worker.engine, "step", crash)
        monkeypatch.setattr(worker.engine, "abort_all", crash)

        # when
        response = worker.chat()

        # then
        assert response.status_code == 500
        assert worker.client.get("/health").status_code == 500
        assert worker.chat().status_code == 500


def test_a_call_and_its_answer_are_counted_without_computing(worker: RunningWorker):
    # given
    answer = worker.chat(max_tokens=12, ignore_eos=True).json()
    text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
    steps = worker.engine.metrics.render()
    # when
    counted = worker.client.post("/v1/counts", json=chat_body(answer=text)).json()["usage"]
    # then
    assert counted["prompt_tokens"] == usage["prompt_tokens"]
    assert counted["completion_tokens"] == len(worker.engine.tokenizer.encode(text))
    assert worker.engine.metrics.render() == steps


def test_what_cannot_be_answered_is_not_counted(worker: RunningWorker):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    body = chat_body(messages=[{"role": "user", "content": [picture]}])
    assert worker.client.post("/v1/counts", json=body).status_code == 400
    assert worker.client.get("/v1/counts").status_code == 405
