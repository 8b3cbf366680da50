"""Two hundred calls at once-ish, of which many leave, lie or ask for nonsense; seeded."""

import asyncio
import random
from pathlib import Path

import httpx
import pytest

from tests.workers.servers import BEARER, MODEL, RunningWorker, running_worker

CALLS = 200
AT_ONCE = 24
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]}}},
    },
}


def chat(dice: random.Random, **fields: object) -> tuple[str, dict[str, object]]:
    text = "x" * dice.randint(1, 120)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": dice.randint(1, 60),
        "temperature": dice.choice([0, 0.7, 1.5]),
        "cache_salt": dice.choice(["alice", "bob"]),
        "priority": dice.choice([-5, 0, 5]),
        "n": dice.choice([1, 1, 1, 3]),
    }
    return "/v1/chat/completions", {**body, **fields}


def honest(dice: random.Random) -> tuple[str, dict[str, object]]:
    return dice.choice(
        [
            lambda: chat(dice),
            lambda: chat(dice, stream=True, stream_options={"include_usage": True}),
            lambda: chat(dice, response_format={"type": "json_object"}),
            lambda: chat(dice, tools=[WEATHER], tool_choice="required"),
            lambda: ("/v1/completions", {"model": MODEL, "prompt": ["ab", "cd"], "logprobs": 2}),
            lambda: ("/v1/completions", {"model": MODEL, "prompt": "ab", "echo": True}),
            lambda: ("/v1/embeddings", {"model": MODEL, "input": ["a" * 60, "b"]}),
        ]
    )()


def poisoned(dice: random.Random) -> tuple[str, dict[str, object]]:
    return dice.choice(
        [
            lambda: chat(dice, temperature=-1),
            lambda: chat(dice, max_tokens=10**9),
            lambda: chat(dice, messages=[{"role": "user", "content": "y" * 3000}]),
            lambda: chat(dice, logit_bias={"999999": 1}),
            lambda: chat(dice, model="gpt-9"),
            lambda: chat(dice, response_format={"type": "json_schema", "json_schema": {}}),
            lambda: chat(
                dice,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"schema": {"$ref": "#/none"}},
                },
            ),
            lambda: chat(dice, tools=[WEATHER]),
            lambda: chat(dice, min_tokens=500),
            lambda: ("/v1/completions", {"model": MODEL, "prompt": [10**12]}),
            lambda: ("/v1/embeddings", {"model": MODEL, "input": "z" * 3000}),
            lambda: ("/detokenize", {"tokens": [-4]}),
        ]
    )()


async def call(client: httpx.AsyncClient, dice: random.Random, seen: list[int]) -> None:
    fate = dice.choice(["stay", "stay", "leave", "leave mid-stream", "poison"])
    path, body = poisoned(dice) if fate == "poison" else honest(dice)
    if fate == "leave":
        try:
            await client.post(path, json=body, timeout=dice.uniform(0.005, 0.2))
        except httpx.TimeoutException:
            return
    elif fate == "leave mid-stream":
        path, body = chat(dice, stream=True, max_tokens=60)
        async with client.stream("POST", path, json=body) as response:
            chunks = response.aiter_raw()
            for _ in range(dice.randint(0, 3)):
                await anext(chunks, b"")
    else:
        response = await client.post(path, json=body)
        seen.append(response.status_code)
        good = {200} if fate == "stay" else {400, 404}
        assert response.status_code in good | {429}, (body, response.text)
        if response.status_code != 200:
            error = response.json()["error"]
            assert error["message"]
            assert error["code"]


async def storm(worker: RunningWorker) -> list[int]:
    seen: list[int] = []
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(
        base_url=worker.url,
        headers={"authorization": f"Bearer {BEARER}"},
        timeout=60,
        trust_env=False,
    ) as client:

        async def one(number: int) -> None:
            async with gate:
                await call(client, random.Random(number), seen)

        async with asyncio.TaskGroup() as group:
            for number in range(CALLS):
                group.create_task(one(number))
    return seen


@pytest.mark.parametrize("kv_blocks", [96, 1200])
def test_nothing_leaks_and_everybody_is_told(tiny_model_dir: Path, kv_blocks: int):
    # given: with few blocks requests preempt each other; audits run in between
    limits = {"speculation": "ngram", "kv_blocks": kv_blocks, "audit_share": 0.3}
    with running_worker(tiny_model_dir, **limits) as worker:
        before = worker.chat(seed=1).json()["choices"]

        # when
        seen = asyncio.run(storm(worker))

        # then
        assert {200, 400} <= set(seen)
        worker.until_idle()
        engine = worker.engine
        assert engine.pool.usage == 0.0
        engine.pool.check_integrity([])
        assert (engine._sequences, engine._texts) == ({}, {})
        assert not engine.auditor.has_work
        assert engine.metrics.totals.audits_different == 0
        assert worker.bridge._streams == {}
        assert worker.chat(seed=1).json()["choices"] == before
