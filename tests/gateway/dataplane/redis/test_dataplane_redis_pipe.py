"""The auto-pipelining connection against a real Redis."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import hiredis
import pytest
import redis

from gateway.dataplane.redis.pipe import RedisAddress, RedisAway, RedisPipe

T = TypeVar("T")


@dataclass(frozen=True)
class Script:
    source: str

    @property
    def sha1(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Call:
    script: Script
    keys: tuple[str, ...] = ()
    args: tuple[bytes | str | int, ...] = ()


ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


def with_pipe(url: str, work: Callable[[RedisPipe], Awaitable[T]], **options: float) -> T:
    async def run() -> T:
        pipe = RedisPipe(RedisAddress.from_url(url), [ADD], timeout_s=options.get("timeout_s", 1.0))
        await pipe.start()
        try:
            return await work(pipe)
        finally:
            await pipe.close()

    return asyncio.run(run())


def test_it_answers_each_call_of_one_tick_in_order(
    redis_client: redis.Redis, redis_url: str
) -> None:
    # given / when
    async def work(pipe: RedisPipe) -> list[int]:
        calls = [pipe.run(Call(ADD, ("n",), (i,)), repeatable=True) for i in range(1, 101)]
        return list(await asyncio.gather(*calls))

    replies = with_pipe(redis_url, work)
    # then
    assert replies == [sum(range(1, i + 1)) for i in range(1, 101)]


def test_it_loads_a_script_that_redis_has_forgotten(
    redis_client: redis.Redis, redis_url: str
) -> None:
    # given
    async def work(pipe: RedisPipe) -> list[int]:
        redis_client.script_flush()
        # when
        calls = [pipe.run(Call(ADD, ("n",), (1,)), repeatable=False) for _ in range(3)]
        return list(await asyncio.gather(*calls))

    # then
    assert with_pipe(redis_url, work) == [1, 2, 3]


def test_it_hands_an_error_to_the_call_that_caused_it(
    redis_client: redis.Redis, redis_url: str
) -> None:
    # given
    redis_client.set("text", "x")

    async def work(pipe: RedisPipe) -> tuple[object, int]:
        # when
        wrong = pipe.run(Call(ADD, ("text",), (1,)), repeatable=False)
        right = pipe.run(Call(ADD, ("n",), (1,)), repeatable=False)
        with pytest.raises(hiredis.ReplyError) as caught:
            await wrong
        return caught.value, await right

    error, right = with_pipe(redis_url, work)
    # then
    assert "not an integer" in str(error)
    assert right == 1


def test_it_sends_only_repeatable_calls_again_after_a_broken_connection(
    redis_client: redis.Redis, redis_url: str
) -> None:
    # given
    async def work(pipe: RedisPipe) -> tuple[int, RedisAway]:
        repeatable = pipe.run(Call(ADD, ("n",), (1,)), repeatable=True)
        other = pipe.run(Call(ADD, ("m",), (1,)), repeatable=False)
        # when: the connection breaks before either was written
        assert pipe._transport is not None
        pipe._transport.abort()
        with pytest.raises(RedisAway) as caught:
            await other
        return await repeatable, caught.value

    value, failure = with_pipe(redis_url, work)
    # then
    assert value == 1
    assert failure.sent
    assert redis_client.get("m") is None


def test_it_fails_at_once_while_redis_is_away(tmp_path: Path) -> None:
    # given
    async def work(pipe: RedisPipe) -> RedisAway:
        # when
        with pytest.raises(RedisAway) as caught:
            await asyncio.wait_for(pipe.command("PING"), 0.5)
        return caught.value

    failure = with_pipe(f"unix://{tmp_path}/nothing.sock", work)
    # then
    assert not failure.sent


def test_it_drops_a_redis_that_does_not_answer(redis_client: redis.Redis, redis_url: str) -> None:
    # given
    redis_client.client_pause(600)

    async def work(pipe: RedisPipe) -> bool:
        # when
        with pytest.raises(RedisAway):
            await pipe.command("PING")
        return pipe.connected

    # then
    try:
        assert with_pipe(redis_url, work, timeout_s=0.2) is False
    finally:
        redis_client.client_unpause()


def test_it_refuses_more_than_it_may_hold(redis_client: redis.Redis, redis_url: str) -> None:
    async def run() -> RedisAway:
        # given
        pipe = RedisPipe(RedisAddress.from_url(redis_url), [ADD], timeout_s=1, pending_max=2)
        await pipe.start()
        first, second = pipe.command("PING"), pipe.command("PING")
        # when
        with pytest.raises(RedisAway) as caught:
            await pipe.command("PING")
        await asyncio.gather(first, second)
        await pipe.close()
        return caught.value

    # then
    assert not asyncio.run(run()).sent


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", database=2)),
        ("redis://h:7000/1", RedisAddress(host="h", port=7000, database=1)),
        (
            "redis://me:p%40ss@h",
            RedisAddress(host="h", username="me", password="p@ss"),
        ),
    ],
)
def test_it_reads_redis_addresses(url: str, expected: RedisAddress) -> None:
    assert RedisAddress.from_url(url) == expected
