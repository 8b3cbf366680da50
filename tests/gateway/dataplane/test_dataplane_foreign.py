"""Servers of others behind a real data plane: what the caller hears, and what is billed."""

import json
from typing import Any

import httpx
import pytest

from tests.fakes import upstream as fake
from tests.fakes.upstream import STREAM_HEAD, TOKENS, USAGE, Exchange, FakeUpstream, _delta
from tests.gateway.world import World, add_offer, add_provider, shown_text, stream_events
from tests.patience import PATIENCE_S

PATH = "/srv/weights/smol/q4.gguf"


async def _say(call: Exchange, *events: Any) -> None:
    await call.raw(STREAM_HEAD)
    for event in events:
        await call.event(event)
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


async def usage_after_the_finish(call: Exchange) -> None:
    """Beside an empty delta of the choice that has ended."""
    said = [_delta({"content": text}) for text in TOKENS]
    await _say(call, *said, _delta({}, "stop"), {**_delta({"content": ""}), "usage": USAGE})


async def knows_no_n(call: Exchange) -> None:
    said = [_delta({"content": text}) for text in TOKENS]
    await _say(call, *said, _delta({}, "stop"), {**_delta({}), "choices": [], "usage": USAGE})


async def pinned(call: Exchange) -> None:
    await call.answer(400, fake._error(f"This server is pinned to '{PATH}', not to small."))


async def names_its_path(call: Exchange) -> None:
    if call.seen.body.get("stream"):
        said = [{**_delta({"content": text}), "model": PATH} for text in TOKENS]
        await _say(call, *said, {**_delta({}, "stop"), "model": PATH, "usage": USAGE})
        return
    message = {"role": "assistant", "content": "".join(TOKENS)}
    choice = {"index": 0, "message": message, "finish_reason": "eos_token"}
    await call.answer(200, {"id": "x", "model": PATH, "choices": [choice], "usage": USAGE})


async def too_small(call: Exchange) -> None:
    said = f"request (9000 tokens) exceeds the available context size (512 tokens) of {PATH}"
    error = {"code": 500, "message": said, "type": "exceed_context_size_error"}
    await call.answer(500, {"error": error})


BEHAVIOURS = {
    "usage-late": usage_after_the_finish,
    "no-n": knows_no_n,
    "pinned": pinned,
    "path": names_its_path,
    "small": too_small,
}


def catalogue(upstream: FakeUpstream) -> None:
    foreign, steady = add_provider("foreign", upstream.url), add_provider("steady", upstream.url)
    for name, behaviour in BEHAVIOURS.items():
        upstream.behaviours[name] = behaviour
        add_offer(provider=foreign, model=name, upstream_model=name)
    upstream.behaviours["pinned-backed"] = pinned
    add_offer(provider=foreign, model="pinned-backed", upstream_model="pinned-backed")
    add_offer(provider=steady, model="pinned-backed", upstream_model="good", dearer=2)


def finishes(events: list[Any]) -> list[str]:
    choices = [each for event in events if isinstance(event, dict) for each in event["choices"]]
    return [each["finish_reason"] for each in choices if each.get("finish_reason")]


@pytest.mark.parametrize(("model", "asked"), [("usage-late", {}), ("no-n", {"n": 2})])
def test_an_answer_is_whole_with_its_usage(
    the_world: World, model: str, asked: dict[str, int]
) -> None:
    # given
    caller = the_world.caller()
    # when
    events = stream_events(the_world.chat(caller, model, stream=True, **asked).text)
    # then
    assert (shown_text(events), finishes(events)) == ("".join(TOKENS), ["stop"])
    (event,) = the_world.settled(caller)
    assert (event["outcome"], event["usage_source"]) == ("ok", "provider")
    assert event["usage"]["output_tokens"] == len(TOKENS)
    told = events[-2].get("tokenhouse")
    assert told == ({"choices_missing": 1} if asked else None)


def test_a_server_pinned_to_another_model_is_left_for_the_next_offer(the_world: World) -> None:
    # given
    caller = the_world.caller()
    # when
    alone, backed = (the_world.chat(caller, model) for model in ("pinned", "pinned-backed"))
    # then
    assert backed.status_code == 200
    assert backed.headers["x-tokenhouse-offer"] == "steady/pinned-backed"
    assert alone.json()["error"]["code"] == "upstream_model_not_found"
    assert PATH not in alone.text
    assert alone.headers["x-should-retry"] == "false"


def test_a_context_error_is_the_request_s_whatever_its_status(the_world: World) -> None:
    # given
    caller, bystander = the_world.caller(), the_world.caller()
    # when
    answers = [the_world.chat(caller, "small") for _ in range(4)]
    # then: each reached the seller, none was counted against it
    assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {
        (400, "context_length_exceeded")
    }
    assert "available context size (512 tokens)" in answers[0].text
    assert PATH not in answers[0].text
    assert {event["outcome"] for event in the_world.settled(caller, 4)} == {"refused"}
    assert the_world.chat(bystander, "small").status_code == 400


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
def test_one_name_of_the_model_streamed_and_whole(the_world: World, path: str) -> None:
    # given
    caller = the_world.caller()
    url = f"{the_world.plane.url}/v1/{path}"
    question = {"model": "path", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}
    # when
    whole = post(url, caller.headers, question)
    streamed = post(url, caller.headers, {**question, "stream": True})
    # then
    assert json.loads(whole)["model"] == "path"
    named = [
        event.get("model") or event["message"]["model"]
        for event in stream_events(streamed)
        if isinstance(event, dict) and ("model" in event or "message" in event)
    ]
    assert set(named) == {"path"}
    assert PATH not in whole + streamed


def post(url: str, headers: dict[str, str], body: dict[str, Any]) -> str:
    return httpx.post(url, headers=headers, json=body, timeout=PATIENCE_S).text
