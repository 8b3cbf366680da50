"""`make demo`: a minute of two tenants' traffic through the public API, and what it cost.

Talks HTTP to a gateway that `make up` started, as any client would: chat, extraction, code
edits, summaries, clients that hang up, and requests that must be refused. Bounded in time, in
requests under way and in tokens. Ends with figures read back from the answers and the board.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import count
from random import Random
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.runtime.demo_prompts import KINDS, PROMPTS, body
from gateway.runtime.places import of_clone

MODEL = "smollm2-135m-instruct"
SKUS = (f"in-house/{MODEL}/plain", f"in-house/{MODEL}/ngram", "")
UNDER_WAY_MAX = 4
OUTPUT_TOKENS = 48
REQUEST_TIMEOUT = timedelta(seconds=60)
# One request in so many is a client that hangs up, or one that must be refused.
HANG_UP_EVERY = 9
REFUSED_EVERY = 7


@dataclass
class Tally:
    """What the answers said, per tenant."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    api_key: str


def main() -> int:
    arguments = _arguments()
    tenants = _tenants(arguments.api_key)
    if not tenants:
        _print("No demo keys found. Run `make up` first, or pass --api-key NAME=KEY.")
        return 1
    tallies = asyncio.run(_run(arguments, tenants))
    _summary(arguments, tenants, tallies)
    return 0 if any(t.outcomes["ok"] for t in tallies.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--api", default="http://127.0.0.1:8000")
    parser.add_argument("--console", default="http://127.0.0.1:8001")
    parser.add_argument("--seconds", type=int, default=60, choices=range(5, 601), metavar="5..600")
    parser.add_argument("--api-key", action="append", default=[], metavar="NAME=KEY")
    return parser.parse_args()


def _tenants(given: list[str]) -> list[Tenant]:
    if given:
        return [Tenant(*pair.split("=", 1)) for pair in given]
    path = of_clone().secrets / "demo.json"
    if not path.exists():
        return []
    stored: dict[str, str] = json.loads(path.read_text(encoding="utf-8")).get("api_keys", {})
    return [Tenant(name, key) for name, key in stored.items()]


async def _run(arguments: argparse.Namespace, tenants: list[Tenant]) -> dict[str, Tally]:
    tallies = {tenant.name: Tally() for tenant in tenants}
    ends_at = time.monotonic() + arguments.seconds
    client = ClientBuilder().no_proxy().follow_redirects(False).timeout(REQUEST_TIMEOUT).build()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    async with client:
        with Progress(*columns, TimeElapsedColumn(), console=Console()) as progress:
            bar = progress.add_task("demo traffic", total=arguments.seconds, told="")
            numbers = count()

            async def one_caller() -> None:
                while time.monotonic() < ends_at:
                    number = next(numbers)
                    tenant = tenants[number % len(tenants)]
                    await _one(client, arguments.api, number, tenant, tallies[tenant.name])
                    spent = arguments.seconds - max(0.0, ends_at - time.monotonic())
                    progress.update(bar, completed=spent, told=_told(tallies))

            async with asyncio.TaskGroup() as group:
                for _ in range(UNDER_WAY_MAX):
                    group.create_task(one_caller())
            progress.update(bar, completed=arguments.seconds)
    return tallies


def _told(tallies: dict[str, Tally]) -> str:
    requests = sum(t.requests for t in tallies.values())
    tokens = sum(t.output_tokens for t in tallies.values())
    return f"{requests} requests, {tokens} tokens out"


async def _one(client: Client, api: str, number: int, tenant: Tenant, tally: Tally) -> None:
    """Send request `number`; what it is follows from its number, so that runs are comparable."""
    random = Random(number)
    kind = KINDS[number // len(SKUS) % len(KINDS)]
    prompt = random.choice(PROMPTS[kind])
    sku = SKUS[number % len(SKUS)]
    asked = body(kind=kind, prompt=prompt, model=MODEL, max_tokens=OUTPUT_TOKENS, sku=sku)
    if number % REFUSED_EVERY == REFUSED_EVERY - 1:
        asked["model"] = "smollm-135m-instrukt"
    hangs_up = asked["stream"] and number % HANG_UP_EVERY == HANG_UP_EVERY - 1
    tally.requests += 1
    request = (
        client.post(f"{api}/v1/chat/completions")
        .bearer_auth(tenant.api_key)
        .header("x-tokenhouse-explain", "1")
        .body_json(asked)
        .streamed_read_buffer_limit(0)
        .build_streamed()
    )
    try:
        async with request as response:
            if response.status != 200:
                tally.outcomes[f"refused {response.status}"] += 1
                return
            _count(await _answer(response, hangs_up=hangs_up), tally)
    except OSError as problem:
        tally.outcomes[f"failed: {type(problem).__name__}"] += 1


async def _answer(response: Any, *, hangs_up: bool) -> bytes:
    """The whole answer, or its first few chunks where this client hangs up."""
    read = bytearray()
    for number in count():
        piece = await response.body_reader.read_chunk()
        if piece is None or (hangs_up and number == 3):
            break
        read += piece
    return bytes(read)


def _count(answer: bytes, tally: Tally) -> None:
    usage = next(_usage_blocks(answer), None)
    if usage is None:
        tally.outcomes["hung up"] += 1
        return
    tally.outcomes["ok"] += 1
    tally.input_tokens += int(usage["prompt_tokens"])
    tally.output_tokens += int(usage["completion_tokens"])
    tally.cost_usd += usage["cost"]


def _usage_blocks(answer: bytes) -> Iterator[dict[str, Any]]:
    for line in answer.splitlines():
        text = line.removeprefix(b"data: ")
        if b'"cost"' in text:
            usage = json.loads(text, parse_float=Decimal, parse_int=Decimal).get("usage")
            if usage:
                yield usage


def _summary(
    arguments: argparse.Namespace, tenants: list[Tenant], tallies: dict[str, Tally]
) -> None:
    table = Table(title="What the demo did")
    for heading in ("tenant", "requests", "tokens in", "tokens out", "cost", "outcomes"):
        table.add_column(heading, justify="left" if heading in {"tenant", "outcomes"} else "right")
    for tenant in tenants:
        tally = tallies[tenant.name]
        outcomes = ", ".join(f"{n} {what}" for what, n in sorted(tally.outcomes.items()))
        cost = f"${tally.cost_usd:.12f}"
        counts = (tally.requests, tally.input_tokens, tally.output_tokens)
        table.add_row(tenant.name, *map(str, counts), cost, outcomes)
    Console().print(table)
    _print(asyncio.run(_speculation(arguments.console)))
    _print(f"Board: {arguments.console}/models/{MODEL}/   Requests: {arguments.console}/requests/")


async def _speculation(console: str) -> str:
    """What speculation saved, as the board computes it; says so where it has too few samples."""
    await asyncio.sleep(7)  # The board is recomputed every five seconds.
    async with ClientBuilder().no_proxy().follow_redirects(False).build() as client:
        response = await (
            client.get(f"{console}/api/v1/leaderboards/{MODEL}/?window=1h").build().send()
        )
        if response.status != 200:
            return f"The board is not there yet ({response.status})."
        facts = (await response.json()).get("facts") or {}
    found = facts.get("speculation")
    if not found:
        return "Speculation: too few samples yet; run the demo once more."
    word = "cheaper" if found["percent"] >= 0 else "dearer"
    return f"Speculation made this {abs(found['percent'])} % {word} on this mix (n = {found['n']})."


def _print(line: str) -> None:
    Console().print(line, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
