"""`make demo`: a minute of two tenants' traffic through the public API, and what it cost.

Talks HTTP to a gateway that `make up` started, as any client would: chat, extraction, code
edits, summaries, clients that hang up, and requests that must be refused. Bounded in time, in
requests under way and in tokens. Ends with figures read back from the answers and the board.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import count, islice
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway import env
from gateway.demo.prompts import KINDS, PROMPTS, body
from gateway.runtime import readiness
from gateway.runtime.data_folders import of_clone

MODEL = "smollm2-135m-instruct"
UNDER_WAY_MAX = 4
OUTPUT_TOKENS = 48
REQUEST_TIMEOUT_S = 60.0
# The board is recomputed every five seconds.
BOARD_SETTLES_S = 7.0
PAUSE_AFTER_FAILURE_S = 0.5
# One request in so many is a client that hangs up, or one that must be refused.
HANG_UP_EVERY = 9
HANG_UP_LINES = 6
REFUSED_EVERY = 7


@dataclass
class Tally:
    """What the answers said, per tenant."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    outcomes: Counter[str] = field(default_factory=Counter)


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal


class Chunk(msgspec.Struct, frozen=True):
    """What is read of an answer, or of a chunk of one."""

    usage: Usage | None = None


class Speculation(msgspec.Struct, frozen=True):
    percent: int | float
    plain_effective_pico: int
    fast_effective_pico: int
    n: int


class Facts(msgspec.Struct, frozen=True):
    speculation: Speculation | None = None


class Row(msgspec.Struct, frozen=True):
    sku: str
    kind: str
    state: str


class Board(msgspec.Struct, frozen=True):
    """What is read of a model's public board."""

    rows: list[Row] = []
    facts: Facts | None = None


class Seeded(msgspec.Struct, frozen=True):
    """What is read of what the seed made."""

    api_keys: dict[str, str] = {}


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
    host, _, port = urlsplit(arguments.api).netloc.rpartition(":")
    if not readiness.answers(host, int(port), "/health"):
        _print(f"Nothing answers at {arguments.api}. Run `make up` first, or name it with --api.")
        return 1
    skus = _in_house_skus(arguments.console)
    if not skus:
        _print(f"No worker of ours sells {MODEL} at {arguments.console} yet.")
        return 1
    tallies = _run(arguments, tenants, skus)
    _summary(arguments, tenants, tallies)
    return 0 if any(t.outcomes["ok"] for t in tallies.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--api", default=_local("TOKENHOUSE_DATAPLANE_PORT", 8000))
    parser.add_argument("--console", default=_local("TOKENHOUSE_CONSOLE_PORT", 8001))
    parser.add_argument("--seconds", type=int, default=60, choices=range(5, 601), metavar="5..600")
    parser.add_argument("--api-key", action="append", default=[], metavar="NAME=KEY")
    return parser.parse_args()


def _local(variable: str, port: int) -> str:
    return f"http://127.0.0.1:{env.lookup(variable) or port}"


def _tenants(given: list[str]) -> list[Tenant]:
    if given:
        return [Tenant(*pair.split("=", 1)) for pair in given]
    path = of_clone().secrets / "demo.json"
    if not path.exists():
        return []
    stored = msgspec.json.decode(path.read_bytes(), type=Seeded)
    return [Tenant(name, key) for name, key in stored.api_keys.items()]


def _in_house_skus(console: str) -> list[str]:
    """What our own workers sell now; how they compute is in the name, so it is asked."""
    rows = _board(console).rows
    return sorted(row.sku for row in rows if row.kind == "in_house" and row.state == "live")


def _run(arguments: argparse.Namespace, tenants: list[Tenant], skus: list[str]) -> dict[str, Tally]:
    tallies = {tenant.name: Tally() for tenant in tenants}
    ends_at = time.monotonic() + arguments.seconds
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console()) as progress:
        bar = progress.add_task("demo traffic", total=arguments.seconds, told="")
        numbers = count()

        def one_caller() -> None:
            while time.monotonic() < ends_at:
                number = next(numbers)
                tenant = tenants[number // len(skus) % len(tenants)]
                _one(arguments.api, number, skus, tenant, tallies[tenant.name])
                spent = arguments.seconds - max(0.0, ends_at - time.monotonic())
                progress.update(bar, completed=spent, told=_told(tallies))

        with ThreadPoolExecutor(UNDER_WAY_MAX) as pool:
            for caller in [pool.submit(one_caller) for _ in range(UNDER_WAY_MAX)]:
                caller.result()
        progress.update(bar, completed=arguments.seconds)
    return tallies


def _told(tallies: dict[str, Tally]) -> str:
    requests = sum(t.requests for t in tallies.values())
    tokens = sum(t.output_tokens for t in tallies.values())
    return f"{requests} requests, {tokens} tokens out"


def _one(api: str, number: int, skus: list[str], tenant: Tenant, tally: Tally) -> None:
    """Send request `number`; what it is follows from its number, so that runs are comparable.

    Neighbouring numbers ask the same of each offer in turn, which keeps their mixes equal.
    """
    turn = number // len(skus)
    kind = KINDS[turn % len(KINDS)]
    prompt = PROMPTS[kind][turn // len(KINDS) % len(PROMPTS[kind])]
    sku = skus[number % len(skus)]
    asked = body(kind=kind, prompt=prompt, model=MODEL, max_tokens=OUTPUT_TOKENS, sku=sku)
    if number % REFUSED_EVERY == REFUSED_EVERY - 1:
        asked["model"] = "smollm-135m-instrukt"
    hangs_up = asked["stream"] and turn % HANG_UP_EVERY == HANG_UP_EVERY - 1
    tally.requests += 1
    connection = HTTPConnection(urlsplit(api).netloc, timeout=REQUEST_TIMEOUT_S)
    headers = {"authorization": f"Bearer {tenant.api_key}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        response = connection.getresponse()
        if response.status != 200:
            tally.outcomes[f"refused {response.status}"] += 1
        else:
            _count(_answer(response, hangs_up=hangs_up), tally)
    except (OSError, HTTPException) as problem:
        tally.outcomes[f"failed: {type(problem).__name__}"] += 1
        time.sleep(PAUSE_AFTER_FAILURE_S)
    finally:
        connection.close()


def _answer(response: HTTPResponse, *, hangs_up: bool) -> bytes:
    """The whole answer, or its first lines where this client hangs up."""
    if hangs_up:
        return b"".join(islice(response, HANG_UP_LINES))
    return response.read()


def _count(answer: bytes, tally: Tally) -> None:
    usage = next(_usage_blocks(answer), None)
    if usage is None:
        tally.outcomes["hung up"] += 1
        return
    tally.outcomes["ok"] += 1
    tally.input_tokens += usage.prompt_tokens
    tally.output_tokens += usage.completion_tokens
    tally.cost_usd += usage.cost


def _usage_blocks(answer: bytes) -> Iterator[Usage]:
    for line in answer.splitlines():
        text = line.removeprefix(b"data: ")
        if b'"cost"' in text:
            usage = msgspec.json.decode(text, type=Chunk).usage
            if usage is not None:
                yield usage


def _summary(
    arguments: argparse.Namespace, tenants: list[Tenant], tallies: dict[str, Tally]
) -> None:
    table = Table(title="What the demo did")
    for heading in ("tenant", "requests", "tokens in", "tokens out", "cost", "outcomes"):
        is_text = heading in {"tenant", "outcomes"}
        justify: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(heading, justify=justify, no_wrap=heading == "cost")
    for tenant in tenants:
        tally = tallies[tenant.name]
        outcomes = ", ".join(f"{n} {what}" for what, n in sorted(tally.outcomes.items()))
        cost = f"${tally.cost_usd:.12f}"
        counts = (tally.requests, tally.input_tokens, tally.output_tokens)
        table.add_row(tenant.name, *map(str, counts), cost, outcomes)
    Console().print(table)
    _print(_speculation(arguments.console))
    _print(f"Board: {arguments.console}/models/{MODEL}/   Requests: {arguments.console}/requests/")


def _speculation(console: str) -> str:
    """What speculation saved, as the board computes it; says so where it has too few samples."""
    time.sleep(BOARD_SETTLES_S)
    facts = _board(console).facts
    found = None if facts is None else facts.speculation
    if found is None:
        return "Speculation: too few samples yet; run the demo once more."
    word = "cheaper" if found.percent >= 0 else "dearer"
    plain, fast = (
        f"${Decimal(pico) / 10**6:.3f}"
        for pico in (found.plain_effective_pico, found.fast_effective_pico)
    )
    return (
        f"Speculation made this {abs(found.percent)} % {word}: {fast} per million output tokens "
        f"with drafts, {plain} without, this traffic's own mix at both prices (n = {found.n}).\n"
        "Prices begin at the calibration and follow what was measured by at most a tenth an hour."
    )


def _board(console: str) -> Board:
    """The model's public board; empty where there is none yet."""
    connection = HTTPConnection(urlsplit(console).netloc, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("GET", f"/api/v1/leaderboards/{MODEL}/?window=1h")
        response = connection.getresponse()
        body = response.read()
        return msgspec.json.decode(body, type=Board) if response.status == 200 else Board()
    except (OSError, HTTPException):
        return Board()
    finally:
        connection.close()


def _print(line: str) -> None:
    Console().print(line, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
