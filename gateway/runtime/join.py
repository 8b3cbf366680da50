"""`make worker`: sells this machine through a gateway elsewhere, by one printed line.

Needs a clone and Python, no gateway of its own. Installs the worker's environment, makes the model
and becomes the worker. Standard library only: there may be no environment yet.
"""

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway import env
from gateway.runtime import bootstrap, data_folders, osuser, saved_environment

MODEL: Final = "smollm2-135m-instruct"
# Not a flag: command lines can be read by every user of the machine.
KEY_VARIABLE: Final = "WORKER_KEY"


def main() -> None:
    options = parse()
    worker_key = env.lookup(KEY_VARIABLE)
    if worker_key is None:
        sys.exit(f"{KEY_VARIABLE} is not set; the admin console prints the whole line")
    try:
        bootstrap.install("worker")
    except bootstrap.InstallFailed as problem:
        sys.exit(str(problem))
    where = data_folders.of_clone()
    osuser.make_enterable(where.root)
    where.secrets.mkdir(mode=0o700, exist_ok=True)
    key_file = where.secrets / f"worker_key-{options.port}"
    saved_environment.write_private(key_file, worker_key)
    command = server_command(options, key_file=key_file, root=where.root)
    os.chdir(data_folders.CLONE)
    os.execve(command[0], command, {k: v for k, v in env.inherited().items() if k != KEY_VARIABLE})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make worker", description=__doc__)
    parser.add_argument("--gateway", required=True, help="the console's address")
    parser.add_argument("--name", default="", help="this worker's name (default: from the host's)")
    parser.add_argument("--usd-per-hour", default="", help="what this machine costs")
    parser.add_argument("--port", type=int, default=8101)
    parser.add_argument("--host", default="", help="this machine's address for the gateway")
    parser.add_argument(
        "--speculation", choices=("off", "ngram", "phrases+ngram"), default="phrases+ngram"
    )
    parser.add_argument(
        "--quantisation", choices=("int8", "none"), default="int8", help="none: exact fp32, slower"
    )
    options = parser.parse_args(arguments)
    if urlsplit(options.gateway).scheme not in ("http", "https"):
        parser.error(f"--gateway {options.gateway!r} is no http address")
    options.host = options.host or address_towards(options.gateway)
    return options


def server_command(options: argparse.Namespace, *, key_file: Path, root: Path) -> tuple[str, ...]:
    """The worker's own command; its model and kernels are kept under `root`."""
    flags = {
        "--model-dir": str(root / "models" / MODEL),
        "--kernel-dir": str(root / "kernels"),
        "--quantisation": options.quantisation,
        "--host": options.host,
        "--port": str(options.port),
        "--speculation": options.speculation,
        "--threads": str(os.cpu_count() or 1),
        "--gateway": options.gateway,
        "--worker-key-file": str(key_file),
    }
    flags |= {"--name": options.name} if options.name else {}
    flags |= {"--usd-per-hour": options.usd_per_hour} if options.usd_per_hour else {}
    python = data_folders.CLONE / bootstrap.TARGETS["worker"].folder / "bin" / "python"
    return (str(python), "-m", "workers.server", *(part for pair in flags.items() for part in pair))


def address_towards(gateway: str) -> str:
    """The address of this machine on the way to the gateway; nothing is sent."""
    parts = urlsplit(gateway)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    family, kind, _, _, target = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


if __name__ == "__main__":
    main()
