"""Runs one load against one address: with wrk where it is installed, else with our own generator.

Every run is bounded in time. wrk hangs up on what is still open when its time is over.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.dataplane.shapes import PATH, Count, Shape

LUA: Final = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"errors":%d,"seconds":%.6f,"p50_us":%.1f,"p99_us":%.1f}}\\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
    summary.duration / 1000000, latency:percentile(50), latency:percentile(99)))
end
"""


def generator() -> str:
    """Which generator `run` uses here."""
    return "wrk" if shutil.which("wrk") else "python"


def run(
    shape: Shape, *, port: int, api_key: str, seconds: int, core: int | None, folder: Path
) -> Count:
    command = ["taskset", "-c", str(core)] if core is not None else []
    if generator() == "wrk":
        script = folder / f"{shape.name}.lua"
        script.write_text(LUA.format(body=shape.body, key=api_key))
        command += ["wrk", "-t1", f"-c{shape.connections}", f"-d{seconds}s", "--timeout", "10s"]
        command += ["-s", str(script), f"http://127.0.0.1:{port}{PATH}"]
    else:
        command += [sys.executable, "-m", "bench.dataplane.asyncio_load", "--shape", shape.name]
        command += ["--port", str(port), "--seconds", str(seconds), "--api-key", api_key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
    counted: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return Count(
        requests=int(counted["requests"]),
        errors=int(counted["errors"]),
        seconds=counted["seconds"],
        p50_us=counted["p50_us"],
        p99_us=counted["p99_us"],
    )
