"""A stopped answer of the real engine is charged what the engine counted, to the token."""

import json
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest

from tests.e2e.stack import MODEL, Stack

PROMPTS = (
    "Describe the harbour of a small northern town in the early morning, at length.",
    "def add(a: int, b: int) -> int:\n    return a + b\n\nExplain this function at length.",
    "请详细介绍一下北京的历史。",
    '{"orders": [{"id": 81, "total": 17.25}, {"id": 82, "total": 3.5}]} Explain this document.',
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    running = Stack()
    try:
        running.start()
        yield running
    finally:
        running.close()


def _stopped(stack: Stack, key: str, prompt: str) -> tuple[str, int]:
    """Leaves after some pieces; the request's id, and how many were read."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 400,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream(
        "POST", f"{stack.api}/v1/chat/completions", json=body, headers=headers, timeout=120
    ) as answer:
        pieces = 0
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                pieces += bool(choice["delta"].get("content"))
            if pieces == 5:
                return answer.headers["x-request-id"], pieces
    raise AssertionError("the answer ended too early to be stopped")


def test_what_was_stopped_costs_its_prompt_and_what_was_delivered(stack: Stack) -> None:
    key = stack.api_keys[0]
    for prompt in PROMPTS:
        # given: the same prompt, answered whole
        whole = stack.chat(key=key, messages=[{"role": "user", "content": prompt}]).json()["usage"]
        # when
        request_id, pieces = _stopped(stack, key, prompt)
        rows = stack.eventually(
            lambda: stack.sql(
                "SELECT outcome, usage_source, input_tokens, output_tokens, tenant_cost_pico"
                f" FROM billing_usageevent WHERE request_id = '{request_id}'"  # noqa: B023
            ),
            timeout_s=30,
        )
        # then
        ((outcome, source, input_tokens, output_tokens, cost_pico),) = rows
        assert (outcome, source) == ("client_cancelled", "engine")
        assert input_tokens == whole["prompt_tokens"]
        assert pieces <= output_tokens < 400
        assert Decimal(cost_pico) > 0
