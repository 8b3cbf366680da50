"""The way to the first request: a model that can be called now, and the line that calls it."""

import json
from collections.abc import Sequence
from typing import Final

from django.conf import settings

from providers.boards import leaderboards

FALLBACK_MODEL: Final = "smollm2-135m-instruct"
PLACEHOLDER: Final = "$TOKENHOUSE_KEY"


def example_model(allowed: Sequence[str] = ()) -> str:
    """A model that some offer serves now; of the allowed ones where a key names any."""
    if allowed:
        return allowed[0]
    callable_now = [row for row in leaderboards.home() if row.routable]
    own = [row for row in callable_now if row.in_house]
    chosen = own or callable_now
    return chosen[0].model if chosen else FALLBACK_MODEL


def curl_line(key: str, model: str) -> str:
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "Say hello in five words."}],
    }
    quote = '"' if key.startswith("$") else "'"
    return (
        f"curl -N {settings.PUBLIC_API_URL}/v1/chat/completions \\\n"
        f"  -H {quote}Authorization: Bearer {key}{quote} \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'"
    )
