"""A whole installation as `make up` runs it, in a folder and on ports of its own.

Everything is real: supervisor, embedded services, data plane, console, Celery, and the two
workers with SmolLM2. Only what is made once is shared with the clone: making the model takes most
of a minute.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import psycopg
import redis

from gateway.runtime import data_folders, osuser
from gateway.runtime.data_folders import CLONE
from gateway.runtime.embedded.postgres import Postgres
from gateway.runtime.embedded.redis import Redis
from tests import patience
from tests.patience import PATIENCE_S
from tests.ports import free_ports

T = TypeVar("T")
MODEL: Final = "smollm2-135m-instruct"
START_TIMEOUT_S: Final = 600.0
STOP_TIMEOUT_S: Final = 180.0
POLL_S: Final = 0.1
OURS: Final = ("DATABASE_URL", "REDIS_URL", "TOKENHOUSE_", "DJANGO_")


class Stack:
    """One running installation. `variables` are added to its environment; `root` is a folder of
    its own, where it shall not be any."""

    def __init__(self, *, root: Path | None = None, **variables: str) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="tokenhouse-e2e-"))
        self.root.chmod(0o711)
        api, console, worker, _ = free_ports(4)  # each worker has one, the second the next
        self.api = f"http://127.0.0.1:{api}"
        self.console = f"http://127.0.0.1:{console}"
        self.worker_port = worker
        self.log = self.root / "up.log"
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(OURS)},
            "TOKENHOUSE_DATA_DIR": str(self.root),
            "TOKENHOUSE_DATAPLANE_PORT": str(api),
            "TOKENHOUSE_CONSOLE_PORT": str(console),
            "TOKENHOUSE_WORKER_PORT": str(worker),
            **variables,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._share_what_takes_long()

    def _share_what_takes_long(self) -> None:
        clone = data_folders.natural_root()
        for name in ("models", "kernels", "services"):
            (clone / name).mkdir(parents=True, exist_ok=True)
            (self.root / name).symlink_to(clone / name)

    # --- start and stop --------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when the supervisor says that everything is up."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway.runtime.up"],
                cwd=CLONE,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.eventually(self._is_up, timeout_s=START_TIMEOUT_S)

    def _is_up(self) -> bool:
        assert self._process is not None
        said = self._said()
        assert self._process.poll() is None, said[-4000:]
        return "Ctrl-C stops everything" in said

    def stop(self) -> int:
        """As Ctrl-C does; returns the supervisor's exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(timeout=STOP_TIMEOUT_S)
        self._process = None
        return code

    def wait(self) -> int:
        """The exit code of a supervisor that somebody has told to stop."""
        assert self._process is not None
        code = self._process.wait(timeout=STOP_TIMEOUT_S)
        self._process = None
        return code

    def run_beside(self) -> "subprocess.CompletedProcess[str]":
        """A second `make up` of the same installation."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.runtime.up"],
            cwd=CLONE,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=STOP_TIMEOUT_S,
            check=False,
        )

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- what it knows ---------------------------------------------------------------------------

    @property
    def demo(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / "secrets" / "demo.json").read_text())
        return loaded

    @property
    def api_keys(self) -> list[str]:
        return list(self.demo["api_keys"].values())

    def variables(self) -> dict[str, str]:
        """The environment in which `manage.py` works on this installation."""
        kept = json.loads((self.root / "secrets" / "environment.json").read_text())
        return {**self._environment, **kept}

    def children(self) -> dict[str, int]:
        """Name to pid of everything that the supervisor runs now."""
        listed = json.loads((self.root / "children.json").read_text())["children"]
        return {entry["name"]: entry["pid"] for entry in listed}

    def kill(self, name: str) -> None:
        """kill -9 of one child and of all that it started."""
        os.killpg(self.children()[name], signal.SIGKILL)

    # --- asking ----------------------------------------------------------------------------------

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        where = data_folders.in_folder(self.root)
        url = Postgres(places=where, user=osuser.for_services()).url
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    @contextmanager
    def redis(self) -> Iterator["redis.Redis"]:
        where = data_folders.in_folder(self.root)
        url = Redis(places=where, user=osuser.for_services()).url
        with redis.Redis.from_url(url) as client:
            yield client

    def chat(self, *, key: str, explain: bool = False, **fields: Any) -> httpx.Response:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
            "temperature": 0,
            **fields,
        }
        headers = {"authorization": f"Bearer {key}"}
        if explain:
            headers["x-tokenhouse-explain"] = "1"
        url = f"{self.api}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        """A page of the console, as a visitor sees it."""
        return httpx.get(f"{self.console}{path}", trust_env=False, timeout=PATIENCE_S)

    def answers(self, path: str) -> bool:
        """Whether the console shows this page."""
        try:
            return self.get(path).is_success
        except httpx.TransportError:
            return False

    def serves(self, *, key: str, model: str = MODEL, **fields: Any) -> bool:
        """Whether a streamed request is answered now; nobody listening counts as no."""
        try:
            return self.chat(key=key, model=model, stream=True, **fields).status_code == 200
        except httpx.TransportError:
            return False

    @contextmanager
    def sign_in(self, prefix: str = "demo") -> Iterator[httpx.Client]:
        """A browser's session: cookies kept, CSRF token sent."""
        client = httpx.Client(
            base_url=self.console, trust_env=False, follow_redirects=True, timeout=PATIENCE_S
        )
        with client:
            client.get("/login/")
            answer = client.post(
                "/login/",
                data={
                    "username": self.demo[f"{prefix}_user"],
                    "password": self.demo[f"{prefix}_password"],
                    "csrfmiddlewaretoken": client.cookies["csrftoken"],
                },
                headers={"referer": f"{self.console}/login/"},
            )
            assert answer.status_code == 200, answer.text[:500]
            assert "sessionid" in client.cookies
            yield client

    def eventually(self, ask: Callable[[], T], *, timeout_s: float = PATIENCE_S) -> T:
        """The first true answer; what other processes do cannot be clocked from here."""

        def said() -> str:
            return f"the supervisor said:\n{self._said()[-3000:]}"

        return patience.eventually(ask, timeout_s=timeout_s, poll_s=POLL_S, said=said)

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def sse_events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of each event of a streamed answer, money read exactly."""
    lines = (line.removeprefix("data: ") for line in answer.text.splitlines())
    return [json.loads(line, parse_float=Decimal) for line in lines if line.startswith("{")]


def worker_of(sku: str) -> str:
    """The child of the supervisor that serves this offer."""
    return f"worker-{sku.rpartition('/')[2].partition('-')[0]}"
