"""Small questions asked by jobs and commands, through the one checked client.

Each is answered whole within one deadline, names, connect and the last byte of the body included,
or not at all: a server that sends a byte a second is one that does not answer.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from providers.chat import UpstreamCall
from providers.errors import ProviderError
from providers.outbound.upstream import Upstream

AT_ONCE_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Question:
    """`approved`: an operator did, so it may be on a private network and speak http. One with a
    body is posted."""

    url: str
    headers: Mapping[str, str]
    approved: bool
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, or in `problem` why there is none."""

    status: int = 0
    body: bytes = b""
    problem: str = ""


def ask(questions: Sequence[Question], *, timeout_s: float, bytes_max: int) -> list[Reply]:
    """The replies in the order of the questions. Blocks; not for a thread that runs a loop."""
    return asyncio.run(_ask_all(questions, timeout_s, bytes_max))


def ask_one(question: Question, *, timeout_s: float, bytes_max: int) -> Reply:
    return ask([question], timeout_s=timeout_s, bytes_max=bytes_max)[0]


async def _ask_all(questions: Sequence[Question], timeout_s: float, bytes_max: int) -> list[Reply]:
    upstream = Upstream(connect_timeout_s=timeout_s, clock=time)
    places = asyncio.Semaphore(AT_ONCE_MAX)

    async def placed(question: Question) -> Reply:
        async with places:
            return await _ask(upstream, question, timeout_s, bytes_max)

    try:
        return await asyncio.gather(*map(placed, questions))
    finally:
        upstream.close()


async def _ask(upstream: Upstream, question: Question, timeout_s: float, bytes_max: int) -> Reply:
    method: Literal["GET", "POST"] = "POST" if question.body else "GET"
    call = UpstreamCall(question.url, question.headers, question.body, method=method)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await upstream.open(call, approved=question.approved)
            try:
                body = await answer.whole(bytes_max=bytes_max)
            finally:
                answer.close()
    except ProviderError as problem:
        return Reply(problem=str(problem))
    except TimeoutError:
        return Reply(problem=f"no whole answer within {timeout_s:g} s")
    if body is None:
        return Reply(problem=f"it answered with more than {bytes_max:,} bytes")
    return Reply(answer.status, body)
