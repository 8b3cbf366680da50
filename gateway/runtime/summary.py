"""What a person needs after `make up`: addresses, a key, a login, a line that works pasted."""

import json
import shlex
from typing import Final, TypedDict

import msgspec

from gateway.runtime import services
from gateway.runtime.data_folders import Places

RULE: Final = "─" * 78


class Demo(TypedDict, total=False):
    """What is read of what the demo seed made: a part that was there before is not in it."""

    api_key: str
    api_keys: dict[str, str]
    worker_key: str
    demo_user: str
    demo_password: str
    admin_user: str
    admin_password: str


def read_demo(where: Places) -> Demo:
    """What the demo seed made for this installation; empty where the operator seeded nothing."""
    try:
        return msgspec.json.decode((where.secrets / "demo.json").read_bytes(), type=Demo)
    except FileNotFoundError:
        return {}


def demo_key(demo: Demo) -> str | None:
    keys = demo.get("api_keys") or {}
    return demo.get("api_key") or next(iter(keys.values()), None)


def text(demo: Demo, *, workers_ready: bool) -> str:
    lines = [RULE, f"  API       {services.api_url()}/v1", f"  Console   {services.console_url()}"]
    key = demo_key(demo)
    if key is not None:
        lines.append(f"  API key   {key}")
    signed_in = (
        ("Team", "/login/", demo.get("demo_user"), demo.get("demo_password")),
        ("Admin", "/admin/", demo.get("admin_user"), demo.get("admin_password")),
    )
    for title, page, user, password in signed_in:
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
