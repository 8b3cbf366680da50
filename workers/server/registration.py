"""Tells a gateway's console that this worker exists, what it costs, and every few seconds its load.

The console may be down, restarted or not there yet: every call is retried with a bounded, growing
pause, for ever, and a worker the console no longer knows registers again. Serving never waits.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import httpx
import msgspec
import torch

from workers import quality
from workers.config import ENGINE_VERSION
from workers.engine.engine import Engine
from workers.server.bridge import EngineBridge, Stopped
from workers.server.calibration import Calibration
from workers.server.console_bodies import (
    CalibratedWork,
    CalibrationFacts,
    Costs,
    EngineFacts,
    Heard,
    HeartbeatBody,
    HeartbeatTotals,
    Registered,
    RegistrationBody,
)
from workers.training.upcycle import MARKER

PAUSE_MIN_S = 1.0
PAUSE_MAX_S = 30.0
CALL_TIMEOUT_S = 5.0
HEARTBEAT_MIN_S = 1.0
HEARTBEAT_MAX_S = 60.0

Sleep = Callable[[float], Awaitable[None]]
Answer = TypeVar("Answer", Registered, Heard)

logger = logging.getLogger(__name__)


class UnknownWorker(LookupError):
    """The console does not know this worker (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the worker says about itself when it registers."""

    gateway_url: str
    worker_key: str
    name: str
    base_url: str
    bearer: str
    model: str
    usd_per_hour: str
    usd_per_hour_source: str


def techniques(engine: Engine) -> list[str]:
    config = engine.config
    found = ["paged-kv", "prefix-cache", "continuous-batching", "chunked-prefill"]
    found += [f"{name}-speculation" for name in config.proposers]
    if engine.model.precision in ("int8", "int4"):
        found.append(engine.model.precision)
    if engine.model.config.sparse is not None:
        found.append("sparse-experts")
    if (config.model_dir / MARKER).is_file():
        found.append("upcycled")
    if config.contextual_sparsity:
        found.append("contextual-sparsity")
    if config.exit_layer:
        found.append("early-exit")
    if config.adapter_dir is not None:
        found.append("lora")
    return found


def features(engine: Engine) -> list[str]:
    """What the gateway may send here beyond plain text."""
    return ["json_schema", "tools"] if engine.tokenizer.tool_style else ["json_schema"]


def _quality(engine: Engine) -> quality.QualityFacts | None:
    """What the bench found this arithmetic to cost with these weights; nothing where unmeasured."""
    report = quality.stored(engine.config.model_dir, engine.model.linear_kind)
    return None if report is None else report.facts()


def costs(engine: Engine, calibration: Calibration) -> Costs:
    """What its techniques take, as far as it is known: bytes now, times of the calibration."""
    every_expert, active = engine.model.expert_bytes
    return Costs(
        weight_bytes=engine.model.weight_bytes,
        full_weight_bytes=engine.model.full_weight_bytes,
        draft_bytes=engine.draft_bytes,
        expert_bytes=every_expert or None,
        active_expert_bytes=active if every_expert else None,
        calibrated=msgspec.convert(calibration, CalibratedWork, from_attributes=True),
        gaps=calibration.gaps,
    )


def registration_body(
    identity: Identity, bridge: EngineBridge, calibration: Calibration
) -> RegistrationBody:
    engine = bridge.engine
    return RegistrationBody(
        name=identity.name,
        base_url=identity.base_url,
        bearer=identity.bearer,
        model=identity.model,
        context_length=engine.context_length,
        max_output_tokens=engine.config.max_output_tokens,
        techniques=techniques(engine),
        features=features(engine),
        usd_per_hour=identity.usd_per_hour,
        usd_per_hour_source=identity.usd_per_hour_source,
        calibration=msgspec.convert(calibration, CalibrationFacts, from_attributes=True),
        costs=costs(engine, calibration),
        engine=EngineFacts(
            version=ENGINE_VERSION,
            dtype=engine.model.precision,
            linear=engine.model.linear_kind,
            threads=engine.config.threads,
            device=str(engine.model.device),
            energy=engine.meter.source,
            quality=_quality(engine),
            torch=str(torch.__version__),
        ),
    )


class Registration:
    def __init__(
        self,
        identity: Identity,
        bridge: EngineBridge,
        calibration: Calibration,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._identity = identity
        self._bridge = bridge
        self._calibration = calibration
        self._sleep = sleep
        self._started_at = time.monotonic()

    async def run(self) -> None:
        """Register and send heartbeats until cancelled."""
        headers = {"authorization": f"Bearer {self._identity.worker_key}"}
        async with httpx.AsyncClient(
            base_url=self._identity.gateway_url,
            headers=headers,
            timeout=CALL_TIMEOUT_S,
            trust_env=False,
        ) as client:
            while self._bridge.is_alive:
                worker_id, period_s = await self._register(client)
                await self._send_heartbeats(client, worker_id, period_s)

    async def _register(self, client: httpx.AsyncClient) -> tuple[int, float]:
        body = registration_body(self._identity, self._bridge, self._calibration)
        pause_s = PAUSE_MIN_S
        while True:
            try:
                answer = await self._call(client, "/api/workers/register", body, Registered)
                logger.info("registered with %s", self._identity.gateway_url)
                period_s = min(max(answer.heartbeat_seconds, HEARTBEAT_MIN_S), HEARTBEAT_MAX_S)
                return answer.worker_id, period_s
            except (httpx.HTTPError, UnknownWorker, ValueError) as error:
                logger.warning("not registered, next try in %.0f s: %s", pause_s, error)
            await self._sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _send_heartbeats(
        self, client: httpx.AsyncClient, worker_id: int, period_s: float
    ) -> None:
        """One each period; a lost one is not repeated, the next says more. Ends on 404."""
        while True:
            try:
                body = await self.heartbeat_body(worker_id)
                await self._call(client, "/api/workers/heartbeat", body, Heard)
            except (UnknownWorker, Stopped):
                return
            except (httpx.HTTPError, ValueError) as error:
                logger.warning("heartbeat failed: %s", error)
            await self._sleep(period_s)

    async def heartbeat_body(self, worker_id: int) -> HeartbeatBody:
        load = await self._bridge.load_now()
        metrics = self._bridge.engine.metrics
        uptime_s = round(time.monotonic() - self._started_at, 3)
        return HeartbeatBody(
            worker_id=worker_id,
            running=load.running,
            waiting=load.waiting,
            kv_cache_usage=round(load.kv_cache_usage, 4),
            gaps=metrics.gap_figures,
            totals=HeartbeatTotals(**asdict(metrics.totals), uptime_s=uptime_s),
        )

    async def _call(
        self,
        client: httpx.AsyncClient,
        path: str,
        body: RegistrationBody | HeartbeatBody,
        answer: type[Answer],
    ) -> Answer:
        headers = {"content-type": "application/json"}
        response = await client.post(path, content=msgspec.json.encode(body), headers=headers)
        if response.status_code == httpx.codes.NOT_FOUND:
            raise UnknownWorker(f"{path} answered 404")
        if not response.is_success:
            raise ValueError(f"{path} answered {response.status_code}: {response.text[:300]}")
        try:
            return msgspec.json.decode(response.content or b"{}", type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} answered what makes no sense: {error}") from error
