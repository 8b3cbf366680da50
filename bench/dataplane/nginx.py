"""nginx as a plain reverse proxy in front of the same upstream: the floor that C sets.

One worker, keep-alive to both sides, no buffering, no log: it checks no key and counts nothing.
"""

import shutil
from typing import Final

from bench.dataplane.bed import Bed, child_environment, free_port

CONFIGURATION: Final = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    upstream mock {{
        server 127.0.0.1:{upstream_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def start(bed: Bed, *, upstream_port: int, is_root: bool) -> tuple[int, int] | None:
    """Starts nginx; returns its pid and port, or None where it is not installed."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        return None
    port = free_port()
    path = bed.folder / "nginx.conf"
    path.write_text(
        CONFIGURATION.format(
            # Workers would otherwise drop to a user that cannot enter the bench's folder.
            user="user root;" if is_root else "",
            folder=bed.folder,
            upstream_port=upstream_port,
            port=port,
        )
    )
    pid = bed.start(
        "nginx",
        [binary, "-c", str(path), "-e", str(bed.folder / "nginx.error.log")],
        core=bed.subject_core,
        environment=child_environment(),
        port=port,
    )
    return pid, port
