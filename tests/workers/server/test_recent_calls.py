"""A call's counts for who lost its end: with every chunk, and afterwards by the caller's id."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.servers import RunningWorker, chat_body, running_worker, sse
from workers.server import recent_calls

COUNTING = {"include_usage": True, "continuous_usage_stats": True}


@pytest.fixture(scope="module")
def worker(tiny_model_dir: Path) -> Iterator[RunningWorker]:
    with running_worker(tiny_model_dir, speculation="ngram") as running:
        yield running


def used(worker: RunningWorker, call_id: str) -> dict:
    answer = worker.client.get(f"/v1/calls/{call_id}")
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize("n", [1, 2])
def test_every_chunk_says_what_was_used_so_far(worker: RunningWorker, n: int):
    # when
    body = chat_body(max_tokens=12, n=n, stream=True, stream_options=COUNTING)
    with worker.client.stream("POST", "/v1/chat/completions", json=body) as response:
        *chunks, last, _ = sse(response)

    # then: it grows to what the end says, cached tokens included
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[0] > 0
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"):
        assert chunks[-1]["usage"][name] == last["usage"][name]


def test_counts_come_with_every_chunk_only_where_they_are_asked_for(worker: RunningWorker):
    for options in ({"include_usage": True}, {"continuous_usage_stats": True}):
        body = chat_body(stream=True, stream_options=options)
        with worker.client.stream("POST", "/v1/chat/completions", json=body) as response:
            events = [event for event in sse(response) if event != "[DONE]"]
        assert all("usage" not in event for event in events if event["choices"])


def test_a_cancelled_call_is_known_by_its_id_with_what_was_sent(worker: RunningWorker):
    # given: 200 tokens are asked for, and the caller leaves after the first
    body = chat_body(max_tokens=200, stream=True, stream_options=COUNTING)
    headers = {"x-request-id": "call-1"}
    with worker.held_after_first_token():
        with worker.client.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers
        ) as response:
            lines = (line for line in response.iter_lines() if line.startswith("data: "))
            first = next(lines)
    # when
    told = used(worker, "call-1")
    # then
    shown = json.loads(first.removeprefix("data: "))["usage"]["completion_tokens"]
    assert 0 < shown <= told["usage"]["completion_tokens"]
    assert (told["id"], told["over"]) == ("call-1", True)
    assert told["usage"]["completion_tokens"] < 200
    assert told["usage"]["prompt_tokens"] == worker.chat().json()["usage"]["prompt_tokens"]


def test_a_whole_answer_is_known_too(worker: RunningWorker):
    # when
    answer = worker.client.post(
        "/v1/chat/completions", json=chat_body(max_tokens=5), headers={"x-request-id": "call-2"}
    )
    # then
    told, usage = used(worker, "call-2")["usage"], answer.json()["usage"]
    assert {name: told[name] for name in told} == {name: usage[name] for name in told}


def test_a_call_that_goes_on_is_told_as_far_as_it_got(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
):
    # given
    monkeypatch.setattr(recent_calls, "WAIT_S", 0.05)
    body = chat_body(max_tokens=200, stream=True, stream_options=COUNTING)
    with worker.held_after_first_token():
        with worker.client.stream(
            "POST", "/v1/chat/completions", json=body, headers={"x-request-id": "call-3"}
        ) as response:
            lines = (line for line in response.iter_lines() if line.startswith("data: "))
            first = json.loads(next(lines).removeprefix("data: "))
            # when
            told = used(worker, "call-3")
    # then
    assert (told["over"], told["usage"]) == (False, first["usage"])


@pytest.mark.parametrize("call_id", ["nobody", "x" * 5000, "%00", "../metrics"])
def test_a_call_that_nobody_made_is_not_found(worker: RunningWorker, call_id: str):
    answer = worker.client.get(f"/v1/calls/{call_id}")

    assert answer.status_code in (404, 400) or answer.url.path == "/v1/metrics"


def test_nobody_asks_without_the_secret(worker: RunningWorker):
    answer = worker.client.get("/v1/calls/call-1", headers={"authorization": "Bearer wrong"})

    assert answer.status_code == 401


def test_only_the_newest_calls_are_kept(monkeypatch: pytest.MonkeyPatch):
    # given
    monkeypatch.setattr(recent_calls, "CALLS_MAX", 3)
    calls = recent_calls.RecentCalls()
    # when
    for number in range(5):
        calls.open(f"call-{number}").end()
    calls.open("")
    calls.open("x" * 1000)
    # then
    assert list(calls._calls) == ["call-2", "call-3", "call-4"]
