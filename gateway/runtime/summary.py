"""What a person needs after `make up`: addresses, a key, a login, a line that works pasted."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final

from gateway.runtime import services
from gateway.runtime.data_folders import Places

RULE: Final = "─" * 78


def read_demo(where: Places) -> dict[str, Any]:
    """What the demo seed made for this installation; empty where the operator seeded nothing."""
    try:
        loaded: dict[str, Any] = json.loads((where.secrets / "demo.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return loaded


def demo_key(demo: Mapping[str, Any]) -> str | None:
    keys = demo.get("api_keys") or {}
    return demo.get("api_key") or next(iter(keys.values()), None)


def text(demo: Mapping[str, Any], *, workers_ready: bool) -> str:
    lines = [RULE, f"  API       {services.api_url()}/v1", f"  Console   {services.console_url()}"]
    key = demo_key(demo)
    if key is not None:
        lines.append(f"  API key   {key}")
    for title, prefix in (("Team", "demo"), ("Admin", "admin")):
        user, password = demo.get(f"{prefix}_user"), demo.get(f"{prefix}_password")
        page = "/admin/" if prefix == "admin" else "/login/"
        if user and password:
            lines.append(f"  {title:<9} {services.console_url()}{page}  {user} / {password}")
    if key is not None:
        when = "" if workers_ready else " (as soon as a worker sells this model)"
        lines += ["", f"  Try it{when}:", "", curl_line(key)]
    return "\n".join([*lines, RULE])


def curl_line(key: str) -> str:
    body = {
        "model": services.MODEL,
        "stream": True,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Why is the sky blue? Answer in one sentence."}],
    }
    url = f"{services.api_url()}/v1/chat/completions"
    header = shlex.quote(f"Authorization: Bearer {key}")
    content = "-H 'Content-Type: application/json'"
    return f"curl -sN {url} -H {header} {content} -d {shlex.quote(json.dumps(body))}"
