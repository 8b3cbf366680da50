"""`python -m workers.server`: load, calibrate, serve, register. Every setting is a flag here."""

import argparse
import asyncio
import contextlib
import logging
import re
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import get_args

import torch
import uvicorn

from workers.config import (
    DEFAULT_MODEL_DIR,
    LOOKUPS,
    MODEL_PROPOSERS,
    DType,
    EngineConfig,
    Quantisation,
)
from workers.convert import ConversionFailed, convert
from workers.device import DeviceUnavailable
from workers.engine.engine import Engine
from workers.memory import NotEnoughMemory
from workers.model.shape import UnsupportedModel
from workers.server.app import App, ServerConfig
from workers.server.bridge import EngineBridge
from workers.server.calibration import stored_or_measured
from workers.server.call_builder import CallBuilder, read_defaults
from workers.server.registration import Identity, Registration
from workers.speculation.proposers import SpeculationRefused
from workers.text.tokenizer import BadTokenizer
from workers.weights.checkpoint import BadWeights

SHUTDOWN_GRACE_S = 5
ASSUMED_USD_PER_HOUR = "0.10"
AUDIT_SHARE = 0.02
CONNECTIONS_MAX = 1024
# What ends the start with one line for the operator.
START_FAILURES = (
    UnsupportedModel,
    BadWeights,
    BadTokenizer,
    SpeculationRefused,
    NotEnoughMemory,
    DeviceUnavailable,
    torch.OutOfMemoryError,
)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    defaults = EngineConfig()
    parser = argparse.ArgumentParser(prog="python -m workers.server", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--adapter", type=Path, help="folder of a LoRA adapter to merge into it")
    parser.add_argument("--model-name", help="served name (default: the folder's name)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8101)
    parser.add_argument("--public-url", help="address for the gateway (default: host and port)")
    parser.add_argument(
        "--speculation",
        default="off",
        help=f"off, or names joined by +, e.g. phrases+ngram: {', '.join(LOOKUPS)} and one of "
        f"{', '.join(MODEL_PROPOSERS)}",
    )
    parser.add_argument("--draft-model", type=Path, help="folder of a smaller model (draft_model)")
    parser.add_argument(
        "--draft-head", type=Path, help="trained head (medusa, eagle; SmolLM2's eagle comes along)"
    )
    parser.add_argument("--draft-layers", type=int, default=0, help="layers of self_draft")
    parser.add_argument(
        "--phrases", type=Path, default=defaults.phrases, help="what the model often says (phrases)"
    )
    parser.add_argument(
        "--audit-share",
        type=float,
        default=AUDIT_SHARE,
        help="share of speculated answers that idle seats compute again without speculation",
    )
    parser.add_argument(
        "--quantisation", choices=get_args(Quantisation), default=defaults.quantisation
    )
    parser.add_argument("--kernel-dir", type=Path, default=defaults.kernel_dir)
    parser.add_argument(
        "--contextual-sparsity", action="store_true", help="skip neurons (OPT; changes texts)"
    )
    parser.add_argument(
        "--exit-layer", type=int, default=0, help="stop there when sure (changes texts; 0: never)"
    )
    parser.add_argument("--exit-confidence", type=float, default=defaults.exit_confidence)
    parser.add_argument("--device", default=defaults.device, help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--dtype", choices=get_args(DType), default=defaults.dtype)
    parser.add_argument("--no-cuda-graphs", action="store_true", help="launch every kernel anew")
    parser.add_argument("--block-size", type=int, default=defaults.block_size, help="tokens")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--kv-blocks", type=int, default=defaults.kv_blocks)
    parser.add_argument("--max-running", type=int, default=defaults.max_running_requests)
    parser.add_argument("--max-waiting", type=int, default=defaults.max_waiting_requests)
    _add_market(parser)
    options = parser.parse_args(arguments)
    for name in ("bearer", "worker_key"):
        path = getattr(options, f"{name}_file")
        if path is not None:
            setattr(options, name, path.read_text().strip())
    if not 0.0 <= options.audit_share <= 1.0:
        parser.error("--audit-share must lie between 0 and 1")
    if options.gateway and not options.worker_key:
        parser.error("--gateway needs --worker-key or --worker-key-file")
    if options.gateway and options.no_bearer:
        parser.error("--gateway needs a bearer secret: leave out --no-bearer")
    if options.gateway and options.host == "0.0.0.0" and not options.public_url:
        parser.error("--host 0.0.0.0 needs --public-url, the address the gateway can reach")
    try:
        engine_config(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def _add_market(parser: argparse.ArgumentParser) -> None:
    """Who may call this worker, which gateway sells it, and for how much."""
    parser.add_argument("--name", help="this worker's name (default: from host name and port)")
    parser.add_argument("--bearer", help="secret that callers must send (default: a new one)")
    parser.add_argument("--bearer-file", type=Path, help="file with that secret")
    parser.add_argument("--no-bearer", action="store_true", help="answer anybody")
    parser.add_argument("--gateway", help="console address to register with, e.g. http://host:8001")
    parser.add_argument("--worker-key", help="key that the operator issued for this worker")
    parser.add_argument("--worker-key-file", type=Path, help="file with that key")
    parser.add_argument("--usd-per-hour", help=f"price of this machine ({ASSUMED_USD_PER_HOUR})")
    parser.add_argument(
        "--usd-per-hour-source", choices=("entered", "preset", "assumed"), help="who says so"
    )


def identity(
    options: argparse.Namespace, *, bearer: str, model_name: str, base_url: str
) -> Identity:
    entered = options.usd_per_hour is not None
    return Identity(
        gateway_url=options.gateway,
        worker_key=options.worker_key,
        name=options.name or default_name(socket.gethostname(), options.port),
        base_url=options.public_url or base_url,
        bearer=bearer,
        model=model_name,
        usd_per_hour=options.usd_per_hour or ASSUMED_USD_PER_HOUR,
        usd_per_hour_source=options.usd_per_hour_source or ("entered" if entered else "assumed"),
    )


def default_name(host: str, port: int) -> str:
    """Lower case, digits, dots and dashes: what a console takes for a name."""
    return f"{re.sub(r'[^a-z0-9.]+', '-', host.lower()).strip('-.') or 'worker'}-{port}"


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything slow, so that a taken port is known at once; port 0 finds a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: App, listener: socket.socket, bridge: EngineBridge, registration: Registration | None
) -> None:
    """Serve until a signal, then let running answers end for a few seconds."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            access_log=False,
            log_level="warning",
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        )
    )
    bridge.start()
    task = asyncio.create_task(registration.run()) if registration is not None else None
    try:
        await server.serve(sockets=[listener])
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(bridge.stop, SHUTDOWN_GRACE_S)


def report(line: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - STARTED_AT:5.1f} s] {line}\n")
    sys.stdout.flush()


STARTED_AT = time.monotonic()


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("workers").setLevel(logging.INFO)
    # Only the folder that is SmolLM2's by name is made; another that is not there is a mistake.
    is_packaged = options.model_dir.name == DEFAULT_MODEL_DIR.name
    if is_packaged and not (options.model_dir / "config.json").is_file():
        try:
            convert(options.model_dir, progress=report)
        except ConversionFailed as error:
            sys.stderr.write(f"{error}\n")
            return 1
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        sys.stderr.write(f"cannot listen on {options.host} port {options.port}: {error}\n")
        return 1
    try:
        run(options, listener)
    except START_FAILURES as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        listener.close()
    return 0


def engine_config(options: argparse.Namespace) -> EngineConfig:
    return EngineConfig(
        model_dir=options.model_dir,
        adapter_dir=options.adapter,
        threads=options.threads,
        device=options.device,
        dtype=options.dtype,
        cuda_graphs=not options.no_cuda_graphs,
        block_size=options.block_size,
        quantisation=options.quantisation,
        kernel_dir=options.kernel_dir,
        speculation=options.speculation,
        audit_share=options.audit_share,
        draft_model_dir=options.draft_model,
        draft_head=options.draft_head,
        draft_layers=options.draft_layers,
        phrases=options.phrases,
        contextual_sparsity=options.contextual_sparsity,
        exit_layer=options.exit_layer,
        exit_confidence=options.exit_confidence,
        kv_blocks=options.kv_blocks,
        max_running_requests=options.max_running,
        max_waiting_requests=options.max_waiting,
    )


def run(options: argparse.Namespace, listener: socket.socket) -> None:
    config = engine_config(options)
    engine = Engine.load(config)
    report(f"loaded {config.model_dir} ({engine.model.linear_kind}, {config.threads} threads)")
    calibration = stored_or_measured(engine, progress=report)
    bearer = "" if options.no_bearer else options.bearer or secrets.token_urlsafe(32)
    model_name = options.model_name or (options.adapter or options.model_dir).resolve().name
    bridge = EngineBridge(engine)
    builder = CallBuilder.of(engine, read_defaults(options.model_dir))
    app = App(bridge, builder, ServerConfig(model_name=model_name, bearer=bearer))
    registration = None
    if options.gateway:
        worker = identity(
            options, bearer=bearer, model_name=model_name, base_url=address_of(listener)
        )
        registration = Registration(worker, bridge, calibration)
    report(f"serving on {address_of(listener)}")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(app, listener, bridge, registration))


if __name__ == "__main__":
    raise SystemExit(main())
