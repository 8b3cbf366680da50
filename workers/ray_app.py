"""The same server as a Ray Serve deployment: many machines, replicas that follow the load.

    python -m workers.ray_app --model-dir … --port 8101 --replicas 1-4 --bearer-file key

Ray is not installed with the worker: `pip install "ray[serve]"` beside it. Every replica is a whole
engine with its own prefix cache. Ray spreads calls evenly; a gateway in front that should send a
conversation to where its prefix is warm needs an address for each engine, so attach those
separately and let its sticky routing choose.
"""

import argparse
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve

from workers.config import DEFAULT_MODEL_DIR, EngineConfig
from workers.engine.engine import Engine
from workers.server.app import App, ServerConfig
from workers.server.bridge import EngineBridge
from workers.server.call_builder import CallBuilder, read_defaults

APP_NAME = "tokenhouse-worker"
QUEUED_MAX = 64
OBJECT_STORE_BYTES = 100 * 1024 * 1024


class Replica:
    """One engine with its HTTP API, on a thread beside the replica's event loop."""

    def __init__(self, config: EngineConfig, *, model_name: str, bearer: str) -> None:
        engine = Engine.load(config)
        self._bridge = EngineBridge(engine)
        builder = CallBuilder.of(engine, read_defaults(config.model_dir))
        self._app = App(self._bridge, builder, ServerConfig(model_name=model_name, bearer=bearer))

    def __serve_build_asgi_app__(self) -> App:
        """Called by Ray once, on the event loop that will serve."""
        self._bridge.start()
        return self._app

    def check_health(self) -> None:
        """Asked by Ray every few seconds; a replica whose engine has ended is replaced."""
        if not self._bridge.is_alive:
            raise RuntimeError("the engine has stopped")


def application(
    config: EngineConfig, *, model_name: str, bearer: str, replicas: tuple[int, int]
) -> Any:
    """The deployment, which grows when a replica has more calls than half of its seats."""
    least, most = replicas
    deployment: Any = serve.deployment(serve.ingress()(Replica))
    return deployment.options(
        name="Engine",
        max_ongoing_requests=config.max_requests,
        max_queued_requests=QUEUED_MAX,
        ray_actor_options={"num_cpus": config.threads},
        autoscaling_config={
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": max(1, config.max_running_requests // 2),
        },
    ).bind(config, model_name=model_name, bearer=bearer)


def replica_range(text: str) -> tuple[int, int]:
    """`2` or `1-4`."""
    least, _, most = text.partition("-")
    found = int(least), int(most or least)
    if not 1 <= found[0] <= found[1]:
        raise ValueError("replicas must be a count or a range such as 1-4")
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.ray_app", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--model-name", help="served name (default: the folder's name)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8101)
    parser.add_argument("--speculation", choices=("off", "ngram"), default="off")
    parser.add_argument("--threads", type=int, default=1, help="of each replica")
    parser.add_argument("--replicas", type=replica_range, default=(1, 1), help="such as 1-4")
    parser.add_argument("--bearer-file", type=Path, help="file with the secret of callers")
    parser.add_argument("--no-bearer", action="store_true", help="answer anybody")
    parser.add_argument("--address", help="an existing Ray cluster (default: one of our own)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    bearer = ""
    if options.bearer_file is not None:
        bearer = options.bearer_file.read_text(encoding="utf-8").strip()
    elif not options.no_bearer:
        bearer = secrets.token_urlsafe(32)
        sys.stdout.write(f"callers must send the bearer secret {bearer}\n")
    local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(address=options.address, **({} if options.address else local))
    serve.start(http_options={"host": options.host, "port": options.port})
    config = EngineConfig(
        model_dir=options.model_dir.resolve(),
        threads=options.threads,
        speculation=options.speculation,
    )
    serve.run(
        application(
            config,
            model_name=options.model_name or options.model_dir.resolve().name,
            bearer=bearer,
            replicas=options.replicas,
        ),
        name=APP_NAME,
        route_prefix="/",
    )
    sys.stdout.write(f"serving on http://{options.host}:{options.port}\n")
    sys.stdout.flush()
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
