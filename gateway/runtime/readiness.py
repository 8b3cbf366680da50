"""Is it up yet? Short questions over HTTP and sockets that never hold up the caller for long."""

import errno
import http.client
import socket
from collections.abc import Mapping
from typing import Final

QUESTION_TIMEOUT_S: Final = 1.0


class PortTaken(RuntimeError):
    """Another program listens where one of ours should."""


def answers(host: str, port: int, path: str) -> bool:
    """True for any answer that is not a server's failure."""
    status = _status(host, port, path, headers={})
    return status is not None and status < 500


def sells(api_url: str, model: str, *, key: str) -> bool:
    """Whether the data plane would let this key call the model now."""
    host, port = host_and_port(api_url)
    headers = {"Authorization": f"Bearer {key}"}
    return _status(host, port, f"/v1/models/{model}", headers=headers) == 200


def host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def _status(host: str, port: int, path: str, *, headers: Mapping[str, str]) -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=QUESTION_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Host": f"127.0.0.1:{port}", **headers})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def require_free(ports: Mapping[str, tuple[str, int]]) -> None:
    for variable, (host, port) in ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as problem:
                raise PortTaken(_explain(variable, host, port, problem)) from None


def _explain(variable: str, host: str, port: int, problem: OSError) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} is taken by another program; choose one: {variable}=NNNN make up"
    return f"cannot listen on {host}:{port}: {problem.strerror}; see {variable} and its host"
