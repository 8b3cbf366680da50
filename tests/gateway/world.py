"""A data plane process with a catalogue, a misbehaving provider and tenants, for tests over HTTP.

The catalogue is made once per module and committed, because another process reads it; tenants and
keys are made per test. Everything is emptied again when the module is done.
"""

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import redis
from django.db import connection
from django.utils import timezone
from psycopg.types.range import TimestamptzRange

from billing import registers
from billing.models import PriceList, PriceVersion, ShardEpoch, Sku, Tenant
from billing.money import PICO_PER_NANO
from billing.prices import plans
from gateway.models import ApiKey, Team
from gateway.runtime.services import DATAPLANE_BUFFER_BYTES
from providers.models import Model, Offer, Provider
from tests.fakes.cable import Cable
from tests.fakes.upstream import FakeUpstream
from tests.patience import PATIENCE_S, eventually
from tests.ports import free_port

EPOCH = "epoch-of-the-tests"
INPUT_PICO = 2_000_000
CACHED_PICO = 500_000
OUTPUT_PICO = 8_000_000
CONTEXT_LENGTH = 8192
DATA_PLANE = "gateway.dataplane.app:app"
PROJECT = Path(__file__).parents[2]
_serial = itertools.count(1)


@dataclass
class Caller:
    """A tenant with a key and credit."""

    tenant: Tenant
    key: ApiKey
    plain: str
    team: Team

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.plain}"}


@dataclass
class DataPlane:
    """One granian process, its address and its environment."""

    port: int
    environment: dict[str, str]
    log: Path
    prefix: tuple[str, ...] = ()  # a program that starts it under other limits
    connections_max: int = 1_024
    application: str = DATA_PLANE
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spool(self) -> Path:
        return Path(self.environment["TOKENHOUSE_DATA_DIR"]) / "spool"

    def start(self) -> None:
        command = [*self.prefix, sys.executable, "-m", "granian", "--interface", "asgi", "--no-ws"]
        command += ["--http1-buffer-size", str(DATAPLANE_BUFFER_BYTES)]
        command += ["--backpressure", str(self.connections_max)]
        command += ["--port", str(self.port), self.application]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._is_ready, said=lambda: self.log.read_text()[-3000:])

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code

    def kill(self) -> None:
        """kill -9 of the server and its worker."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)
        self.process = None

    def resident_bytes(self) -> int:
        """Of the whole process tree."""
        assert self.process is not None
        listed = subprocess.run(
            ["ps", "-o", "rss=", "-g", str(self.process.pid)], capture_output=True, check=True
        )
        return sum(int(line) for line in listed.stdout.split()) * 1024


@dataclass
class World:
    """What a test of the data plane plays with."""

    redis: "redis.Redis"
    upstream: FakeUpstream
    plane: DataPlane
    cables: dict[str, Cable] = field(default_factory=dict)

    def caller(
        self, *, credit_nano: int = 10**9, plan: PriceList | None = None, **tenant: Any
    ) -> Caller:
        """A fresh tenant with a key and this credit; no reload is needed for it."""
        number = next(_serial)
        made = Tenant.objects.create(slug=f"t{number}", name=f"Tenant {number}", **tenant)
        plans.assign(tenant=made, plan=plan, actor="ada", now=timezone.now())
        team = Team.objects.create(tenant=made, slug="main", name="Main")
        plain = f"tk-{number:012d}-{'s' * 43}"
        key = ApiKey.objects.create(
            tenant=made,
            team=team,
            name=f"key {number}",
            public_id=f"{number:012d}",
            key_hash=hashlib.sha256(plain.encode()).digest(),
            scopes=["inference"],
        )
        self.give_credit(made, credit_nano)
        return Caller(made, key, plain, team)

    def reload_snapshot(self) -> None:
        """Tell the process that something changed, and wait until it has looked: since now, for a
        load that was under way may have begun before the change."""
        changed_ms = time.time() * 1000
        self.redis.incr(registers.SNAPSHOT_VERSION_KEY)
        eventually(lambda: self.snapshot_ms() > changed_ms)

    def snapshot_ms(self) -> int:
        said = httpx.get(f"{self.plane.url}/ready", timeout=PATIENCE_S).json()
        return int(said["snapshot_ms"])

    def give_credit(self, tenant: Tenant, credit_nano: int) -> None:
        tag = registers.shard_tag(tenant.pk)
        self.redis.hset(
            registers.tenant_key(tag, tenant.pk),
            mapping={"credit": credit_nano, "version": 1, "status": "active"},
        )

    def register(self, caller: Caller) -> dict[str, int]:
        """The tenant's register: credit, spent, held."""
        tag = registers.shard_tag(caller.tenant.pk)
        found = self.redis.hgetall(registers.tenant_key(tag, caller.tenant.pk))
        return {name: int(found.get(name.encode(), 0)) for name in ("credit", "spent", "held")}

    def events(self, caller: Caller) -> list[dict[str, Any]]:
        """The usage events of this tenant in the stream, oldest first, with what was charged."""
        stream = registers.stream_key(registers.shard_tag(caller.tenant.pk))
        found = []
        for _, entry in self.redis.xrange(stream):
            event = json.loads(entry[b"e"])
            if event["tenant"] == caller.tenant.pk:
                found.append({**event, "charged_nano": int(entry[b"c"])})
        return found

    def settled(self, caller: Caller, count: int = 1) -> list[dict[str, Any]]:
        """The events once there are `count` of them and nothing is held any more."""
        eventually(lambda: len(self.events(caller)) >= count and not self.register(caller)["held"])
        return self.events(caller)

    def chat(
        self,
        caller: Caller,
        model: str,
        *,
        stream: bool = False,
        timeout: float = PATIENCE_S,
        **more: Any,
    ) -> httpx.Response:
        headers = {**caller.headers, **more.pop("headers", {})}
        return httpx.post(
            f"{self.plane.url}/v1/chat/completions",
            headers=headers,
            json=question(model, stream=stream, **more),
            timeout=timeout,
        )


def question(model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "What does the fox do?"}],
        "max_tokens": 50,
        "stream": stream,
        **more,
    }


def stream_events(text: str) -> list[Any]:
    """The data of each server-sent event; "[DONE]" as it is."""
    found = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def shown_text(events: list[Any]) -> str:
    parts = [
        choice.get("delta", {}).get("content") or ""
        for event in events
        if isinstance(event, dict)
        for choice in event.get("choices", [])
    ]
    return "".join(parts)


def cost_pico(input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """By hand: uncached and cached input and output at the catalogue's prices."""
    uncached = input_tokens - cached_tokens
    return uncached * INPUT_PICO + cached_tokens * CACHED_PICO + output_tokens * OUTPUT_PICO


def nano(pico: int) -> int:
    return -(-pico // PICO_PER_NANO)


def add_offer(
    *, provider: Provider, model: str, upstream_model: str, dearer: int = 1, **more: Any
) -> Offer:
    """An offer at the catalogue's prices times `dearer`."""
    known, _ = Model.objects.get_or_create(
        slug=model, defaults={"name": model, "context_length": CONTEXT_LENGTH}
    )
    offer = Offer.objects.create(
        provider=provider,
        model=known,
        sku=f"{provider.slug}/{model}",
        upstream_model=upstream_model,
        context_length=CONTEXT_LENGTH,
        capabilities=["chat"],
        **more,
    )
    sku = Sku.objects.create(code=offer.sku)
    PriceVersion.objects.create(
        sku=sku,
        during=TimestamptzRange(datetime(2026, 1, 1, tzinfo=UTC), None),
        input_pico=INPUT_PICO * dearer,
        cache_read_pico=CACHED_PICO * dearer,
        cache_write_5m_pico=INPUT_PICO * dearer,
        cache_write_1h_pico=INPUT_PICO * dearer,
        output_pico=OUTPUT_PICO * dearer,
        reasoning_pico=OUTPUT_PICO * dearer,
        source="test",
        recorded_by="test",
    )
    return offer


def add_provider(slug: str, url: str, **more: Any) -> Provider:
    return Provider.objects.create(
        slug=slug,
        name=slug.title(),
        kind=more.pop("kind", Provider.Kind.POOL),
        wire=Provider.Wire.OPENAI,
        base_url=url,
        **more,
    )


def warm(client: "redis.Redis") -> None:
    """All shards know the epoch that Postgres names."""
    for shard in range(registers.SHARDS):
        ShardEpoch.objects.update_or_create(
            shard=shard, defaults={"epoch": EPOCH, "rebuilt_at": datetime.now(UTC)}
        )
        client.set(registers.epoch_key(registers.tag_of_shard(shard)), EPOCH)


def lay_cables(redis_url: str, folder: Path) -> dict[str, Cable]:
    """What the data plane connects to instead of Redis and Postgres, so that a test can cut it."""
    socket_name = ".s.PGSQL.5432"
    cables = {
        "redis": Cable(folder / "redis.sock", Path(urlsplit(redis_url).path)),
        "postgres": Cable(
            folder / socket_name, Path(connection.settings_dict["HOST"]) / socket_name
        ),
    }
    for cable in cables.values():
        cable.start()
    return cables


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """This test session's environment, pointed at the test database through the cables."""
    database = connection.settings_dict
    return {
        **os.environ,
        "DATABASE_URL": f"postgresql://{database['USER']}@/{database['NAME']}?host={folder}",
        "REDIS_URL": f"unix://{folder}/redis.sock",
        **variables,
    }


@contextmanager
def world(
    redis_url: str,
    folder: Path,
    catalogue: Callable[[FakeUpstream], None],
    variables: Mapping[str, str],
    application: str = DATA_PLANE,
) -> Iterator[World]:
    """Everything started, with the catalogue that `catalogue` makes."""
    upstream = FakeUpstream()
    upstream.start()
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    # A unix socket's path must stay short, which pytest's folders are not.
    sockets = Path(tempfile.mkdtemp(prefix="tokenhouse-cables-"))
    cables = lay_cables(redis_url, sockets)
    environment_of_plane = environment(sockets, {"TOKENHOUSE_DATA_DIR": str(folder), **variables})
    plane = DataPlane(
        free_port(), environment_of_plane, folder / "plane.log", application=application
    )
    try:
        catalogue(upstream)
        warm(client)
        plane.start()
        yield World(client, upstream, plane, cables)
    finally:
        if plane.process is not None and plane.process.poll() is None:
            plane.kill()
        upstream.stop()
        for cable in cables.values():
            cable.stop()
        shutil.rmtree(sockets)
        client.flushall()
        client.close()
