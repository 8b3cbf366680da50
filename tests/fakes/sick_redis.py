"""Puts a real Redis into each state in which it refuses what it would take at another time."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import redis

from tests.fakes.small_disk import small_disk
from tests.patience import eventually

NOBODY = ("127.0.0.1", "1")
BUSY_AFTER_MS = 50
# While it loads it listens after every two megabytes.
LOADED_KEYS = 40
LOADED_BYTES = 1_100_000
LOADING_KEY_US = 30_000


def _wait_for(client: redis.Redis, is_refused: bool) -> None:
    """Until a write is refused, or taken again."""
    eventually(lambda: _refuses(client) is is_refused)


def _refuses(client: redis.Redis) -> bool:
    try:
        client.set("sick:probe", "1")
    except redis.RedisError:
        return True
    return False


@contextmanager
def out_of_memory(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    client.replicaof(*NOBODY)
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def stale_replica(client: redis.Redis) -> Iterator[None]:
    client.config_set("replica-serve-stale-data", "no")
    try:
        with replica(client):
            yield
    finally:
        client.config_set("replica-serve-stale-data", "yes")


@contextmanager
def without_replicas(client: redis.Redis) -> Iterator[None]:
    client.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        client.config_set("min-replicas-to-write", 0)


@contextmanager
def busy(client: redis.Redis) -> Iterator[None]:
    """Held up by somebody's script that does not end."""
    limit_ms = client.config_get("lua-time-limit")["lua-time-limit"]
    client.config_set("lua-time-limit", BUSY_AFTER_MS)

    def occupy() -> None:
        with suppress(redis.ResponseError):
            client.eval("while true do end", 0)

    script = threading.Thread(target=occupy)
    script.start()
    try:
        _wait_for(client, True)
        yield
    finally:
        client.script_kill()
        script.join()
        client.config_set("lua-time-limit", limit_ms)


@contextmanager
def loading(client: redis.Redis) -> Iterator[None]:
    """For some seconds, whatever the test does meanwhile: it ends when the loading does."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(LOADED_KEYS):
            pipe.set(f"sick:{number}", os.urandom(LOADED_BYTES))
        pipe.execute()
    client.config_set("key-load-delay", LOADING_KEY_US)

    def load() -> None:
        with suppress(redis.RedisError):
            client.execute_command("DEBUG", "RELOAD")

    reloading = threading.Thread(target=load)
    reloading.start()
    try:
        _wait_for(client, True)
        yield
    finally:
        reloading.join()
        _wait_for(client, False)
        client.config_set("key-load-delay", 0)
        client.delete(*(f"sick:{number}" for number in range(LOADED_KEYS)))


@contextmanager
def disk_full(client: redis.Redis, folder: Path) -> Iterator[None]:
    """Its append-only file is on a file system without room."""
    before = client.config_get("dir")["dir"]
    with small_disk(folder / "append-only", megabytes=4) as disk:
        client.config_set("dir", str(disk.path))
        client.config_set("appendonly", "yes")
        try:
            eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
            disk.fill()
            _wait_for(client, True)
            yield
        finally:
            disk.free()
            _wait_for(client, False)
            client.config_set("appendonly", "no")
            client.config_set("dir", before)


STATES: dict[str, Callable[[redis.Redis], AbstractContextManager[None]]] = {
    "OOM": out_of_memory,
    "READONLY": replica,
    "MASTERDOWN": stale_replica,
    "NOREPLICAS": without_replicas,
    "BUSY": busy,
    "LOADING": loading,
}
