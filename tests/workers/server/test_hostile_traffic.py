"""Two hundred calls at once-ish, of which many leave, lie or ask for nonsense; seeded.

Afterwards nothing of them is left: no block, seat, place in a queue, draft state or object. The
same storm once more needs no more memory than the first.
"""

import asyncio
import gc
import json
import random
from collections import Counter
from pathlib import Path

import httpx
import pytest
import torch

from tests.workers.engines import write_tiny_model
from tests.workers.servers import BEARER, MODEL, RunningWorker, running_worker, until
from workers.cache.kv import BlockTable
from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest, Sequence
from workers.server.bridge import Stream
from workers.server.http_exchange import Exchange
from workers.speculation.draft_heads import HeadKind, HeadShape, TrainedHead, new_head, save_head
from workers.speculation.policy import Acceptance, CostCurve
from workers.text.detokenizer import TextStream

CALLS = 200
AT_ONCE = 24
# Of one request, or of one call: none may outlive it.
KINDS = (
    Sequence,
    GenerationRequest,
    BlockTable,
    TextStream,
    Stream,
    Exchange,
    Acceptance,
)
RESIDENT_RATIO_MAX = 1.1
FREE_DRAFTS = CostCurve([(1, 60.0), (4096, 60.0)])
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
        "priority": dice.choice([-5, 0, 5, "batch", "priority"]),
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
            lambda: chat(dice, service_tier="at once"),
            lambda: chat(dice, n=9),
            lambda: ("/v1/completions", {"model": MODEL, "prompt": [10**12]}),
            lambda: ("/v1/embeddings", {"model": MODEL, "input": "z" * 3000}),
            lambda: ("/detokenize", {"tokens": [-4]}),
        ]
    )()


async def call(client: httpx.AsyncClient, dice: random.Random, seen: list[int]) -> None:
    fate = dice.choice(["stay", "stay", "leave", "leave mid-stream", "hang up", "poison"])
    path, body = poisoned(dice) if fate == "poison" else honest(dice)
    if fate == "hang up":
        await hang_up(client.base_url, dice)
    elif fate == "leave":
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


async def hang_up(url: httpx.URL, dice: random.Random) -> None:
    """Send a part of a call, at times all of it or none, and close without reading."""
    path, body = chat(dice, stream=dice.random() < 0.5)
    text = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BEARER}\r\n"
        f"content-length: {len(text)}\r\n\r\n"
    )
    whole = head.encode() + text
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(whole[: dice.randint(0, len(whole))] if dice.random() < 0.7 else whole)
    await writer.drain()
    writer.transport.abort()


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


def living() -> Counter[str]:
    """Objects of `KINDS` by name."""
    gc.collect()
    return Counter(type(item).__name__ for item in gc.get_objects() if type(item) in KINDS)


def kept_by_proposers(engine: Engine) -> list[str]:
    """Names of what proposers still hold of requests."""
    places = ("_texts", "_last", "_windows")
    return [name for p in engine._drafter._proposers for name in places if getattr(p, name, None)]


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.fixture(scope="module")
def draft_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """What a proposer needs beside its name."""
    folder = tmp_path_factory.mktemp("drafts")

    def head(kind: HeadKind) -> dict[str, Path]:
        shape = HeadShape(kind=kind, hidden_size=96, vocab_size=258, depth=3)
        path = folder / f"{kind}.safetensors"
        save_head(path, TrainedHead(shape, torch.arange(258), new_head(shape)))
        return {"draft_head": path}

    small = write_tiny_model(tmp_path_factory.mktemp("small"), seed=3)
    return {
        "draft_model": {"draft_model_dir": small},
        "medusa": head("medusa"),
        "eagle": head("eagle"),
    }


@pytest.mark.parametrize(
    ("kv_blocks", "speculation"),
    [
        (96, "ngram"),
        (1200, "ngram"),
        (96, "suffix+draft_model"),
        (96, "self_draft"),
        (96, "medusa"),
        (1200, "ngram+eagle"),
    ],
)
def test_nothing_leaks_and_everybody_is_told(
    tiny_model_dir: Path,
    draft_files: dict[str, dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
    kv_blocks: int,
    speculation: str,
):
    # given: with few blocks requests preempt each other; audits run in between; drafts are sent
    # whether they pay or not
    monkeypatch.setattr(Engine, "measure_costs", lambda self: FREE_DRAFTS)
    files = draft_files.get(speculation.rpartition("+")[2], {})
    limits = {"speculation": speculation, "kv_blocks": kv_blocks, "audit_share": 0.3, **files}
    with running_worker(tiny_model_dir, **limits) as worker:
        before = worker.chat(seed=1).json()["choices"]
        asyncio.run(storm(worker))
        worker.until_idle()
        pages = resident_pages()

        # when
        seen = asyncio.run(storm(worker))

        # then
        assert {200, 400} <= set(seen)
        worker.until_idle()
        engine = worker.engine
        assert engine.pool.usage == 0.0
        engine.pool.check_integrity([])
        assert (engine._sequences, engine._texts) == ({}, {})
        assert (engine.scheduler.waiting, engine.scheduler.running) == ([], [])
        assert not engine.auditor.has_work
        assert engine.metrics.totals.audits_different == 0
        assert engine.metrics.totals.drafted > 0
        assert engine._drafter._states == {}
        assert kept_by_proposers(engine) == []
        assert worker.bridge._streams == {}
        assert worker.bridge._commands.empty()
        until(lambda: not living())
        assert resident_pages() < RESIDENT_RATIO_MAX * pages
        assert worker.chat(seed=1).json()["choices"] == before
