"""Stopped and finished answers of the real engine are charged what it counted, to the token.

`TOKENHOUSE_CHARGES_REQUESTS=300 … tests/e2e/test_cancelled_in_house.py -s` for more of them.
"""

import json
import os
import sys
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

import httpx

from tests.e2e.stack import MODEL, Stack, worker_of
from tests.patience import PATIENCE_S

REQUESTS: Final = int(os.environ.get("TOKENHOUSE_CHARGES_REQUESTS", "8"))
PROMPTS: Final = (
    "Describe the harbour of a small northern town in the early morning, at length.",
    "def add(a: int, b: int) -> int:\n    return a + b\n\nExplain this function at length.",
    "请详细介绍一下北京的历史。",
    '{"orders": [{"id": 81, "total": 17.25}, {"id": 82, "total": 3.5}]} Explain this document.',
)
FINISHED: Final = 0  # of the ends: read whole; the others are left behind so many pieces
ENDS: Final = (5, FINISHED, 1, 12, 3)
COLUMNS: Final = "outcome, usage_source, input_tokens, output_tokens"


@dataclass(frozen=True, slots=True)
class Charge:
    """What was booked, what was read, and what the engine counts when it is asked for just that."""

    outcome: str
    source: str
    input_tokens: int
    output_tokens: int
    read: str
    whole: str
    whole_input_tokens: int
    whole_output_tokens: int

    @property
    def is_exact(self) -> bool:
        return (self.input_tokens, self.output_tokens) == (
            self.whole_input_tokens,
            self.whole_output_tokens,
        )


def _read(stack: Stack, key: str, prompt: str, *, pieces: int, cut: bool) -> tuple[str, str]:
    """The request's id and the text that was read of it: to its end, before leaving, or until the
    worker that was killed behind so many pieces fell silent."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 400 if pieces else 20,
        "temperature": 0,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    url = f"{stack.api}/v1/chat/completions"
    read: list[str] = []
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and (choices := json.loads(line[6:])["choices"]):
                read += [text] if (text := choices[0]["delta"].get("content")) else []
            if pieces and len(read) == pieces:
                if not cut:
                    break
                stack.kill(worker_of(answer.headers["x-tokenhouse-offer"]))
                pieces = 0
        return answer.headers["x-request-id"], "".join(read)


def _charged(stack: Stack, key: str, prompt: str, *, pieces: int, cut: bool = False) -> Charge:
    request_id, read = _read(stack, key, prompt, pieces=pieces, cut=cut)
    query = f"SELECT {COLUMNS} FROM billing_usageevent WHERE request_id = %s"
    ((outcome, source, input_tokens, output_tokens),) = stack.eventually(
        lambda: stack.sql(query, request_id)
    )
    messages = [{"role": "user", "content": prompt}]
    whole = stack.chat(key=key, messages=messages, max_tokens=output_tokens).json()
    return Charge(
        outcome=outcome,
        source=source,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        read=read,
        whole=whole["choices"][0]["message"]["content"],
        whole_input_tokens=whole["usage"]["prompt_tokens"],
        whole_output_tokens=whole["usage"]["completion_tokens"],
    )


def test_every_answer_costs_its_prompt_and_what_was_delivered(stack: Stack) -> None:
    # given
    key = stack.api_keys[0]
    asked = islice(zip(cycle(PROMPTS), cycle(ENDS), strict=False), REQUESTS)
    # when
    charges = [(pieces, _charged(stack, key, prompt, pieces=pieces)) for prompt, pieces in asked]
    # then: asked for as many tokens as were charged, the engine gives the very text that was read,
    # or one piece that was on its way when the caller left
    for pieces, charge in charges:
        ended = ("client_cancelled", "engine") if pieces else ("ok", "provider")
        assert (charge.outcome, charge.source) == ended
        assert charge.is_exact
        assert charge.whole.startswith(charge.read)
    on_their_way = sum(charge.whole != charge.read for _, charge in charges)
    sys.stdout.write(f"{len(charges)} charged exactly; {on_their_way} with a piece under way\n")


def test_an_answer_that_its_worker_s_death_cut_costs_the_same(stack: Stack) -> None:
    # when
    charge = _charged(stack, stack.api_keys[0], PROMPTS[0], pieces=5, cut=True)
    # then
    assert (charge.outcome, charge.source) == ("upstream_cut", "engine")
    assert charge.is_exact
    assert charge.whole == charge.read
