"""One request from HTTP to the leaderboard; every figure is compared with one computed by hand."""

from decimal import Decimal
from functools import partial
from typing import Any

import httpx

from tests.e2e.stack import MODEL, Stack, sse_events

PICO = Decimal(10) ** 12


def _price_of(stack: Stack, sku: str) -> dict[str, int]:
    names = ("id", "input_pico", "cache_read_pico", "output_pico")
    [row] = stack.sql(
        f"SELECT {', '.join('v.' + n for n in names)} FROM billing_priceversion v "
        "JOIN billing_sku s ON s.id = v.sku_id WHERE s.code = %s AND v.during @> now() "
        "AND v.service_tier = 0 AND v.context_over = 0",
        sku,
    )
    return dict(zip(names, row, strict=True))


def _by_hand(usage: dict[str, Any], price: dict[str, int]) -> int:
    cached = int(usage.get("prompt_tokens_details", {}).get("cached_tokens", 0))
    uncached = int(usage["prompt_tokens"]) - cached
    return (
        uncached * price["input_pico"]
        + cached * price["cache_read_pico"]
        + int(usage["completion_tokens"]) * price["output_pico"]
    )


def test_a_streamed_request_is_paid_posted_shown_and_ranked(stack: Stack) -> None:
    # given a tenant's credit before the request
    key = stack.api_keys[0]
    tenant, api_key_id = stack.sql(
        "SELECT tenant_id, id FROM gateway_apikey WHERE public_id = %s", key.split("-")[1]
    )[0]
    before = _credit_left(stack, tenant)

    # when one answer is streamed
    answer = stack.chat(key=key, stream=True, max_tokens=12)

    # then its last event carries usage and a cost that a person can compute
    assert answer.status_code == 200, answer.text
    events = sse_events(answer)
    usage = events[-1]["usage"]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
    request_id = answer.headers["x-request-id"]
    sku = answer.headers["x-tokenhouse-offer"]
    price = _price_of(stack, sku)
    cost_pico = _by_hand(usage, price)
    assert usage["cost"] * PICO == cost_pico > 0

    # and within two seconds there is one usage event with that cost, posted
    [event] = stack.eventually(
        lambda: stack.sql(
            "SELECT tenant_id, api_key_id, sku, price_version_id, input_tokens, output_tokens, "
            "tenant_cost_pico, state, transfer_id, outcome FROM billing_usageevent "
            "WHERE request_id = %s",
            request_id,
        ),
        timeout_s=2.5,
    )
    assert event[:7] == (
        tenant,
        api_key_id,
        sku,
        price["id"],
        int(usage["prompt_tokens"]),
        int(usage["completion_tokens"]),
        cost_pico,
    )
    assert (event[7], event[9]) == ("posted", "ok")

    # and its transfer is balanced, with the tenant's credit debited by all it carries
    [(balance,)] = stack.sql(
        "SELECT sum(amount_pico) FROM billing_entry WHERE transfer_id = %s", event[8]
    )
    assert balance == 0
    assert before - _credit_left(stack, tenant) == cost_pico

    # and the dashboard shows the request with the cost to the last digit, and who served
    with stack.sign_in() as browser:
        page = browser.get(f"/requests/{request_id}/")
    assert page.status_code == 200
    digits = f"{cost_pico:013d}"
    assert digits[-12:] in "".join(c for c in page.text if c.isalnum() or c in ".$")
    assert sku.rpartition("/")[2] in page.text

    # and the board ranks the offer at the price that it published
    board, row = stack.eventually(partial(_ranked, stack, sku), timeout_s=20)
    assert row["list"]["output_pico"] == price["output_pico"]
    assert row["list"]["price_version"] == price["id"]
    assert row["effective"]["pico"] == _effective_by_hand(board["mix"], price)


def _credit_left(stack: Stack, tenant: int) -> int:
    """What the ledger says we owe the tenant: credits are negative entries of its account."""
    [(total,)] = stack.sql(
        "SELECT coalesce(-sum(e.amount_pico), 0) FROM billing_entry e JOIN billing_account a "
        "ON a.id = e.account_id WHERE a.kind = 'tenant_credit' AND a.tenant_id = %s",
        tenant,
    )
    return int(total)


def _whole_board(stack: Stack) -> dict[str, Any]:
    url = f"{stack.console}/api/v1/leaderboards/{MODEL}/?window=1h"
    answer = httpx.get(url, trust_env=False)
    assert answer.status_code == 200, answer.text
    board: dict[str, Any] = answer.json()
    return board


def _ranked(stack: Stack, sku: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The board and the offer's row of it, of one reading: the mix changes with each request."""
    board = _whole_board(stack)
    rows = [row for row in board["rows"] if row["sku"] == sku and row["requests"] >= 1]
    return (board, rows[0]) if rows else None


def _effective_by_hand(mix: dict[str, int], price: dict[str, int]) -> int:
    """Too few samples for a cache-hit rate: the mix at list price, nothing assumed cached."""
    tokens_in = mix["uncached_tokens"] + mix["cached_tokens"]
    total = tokens_in * price["input_pico"] + mix["output_tokens"] * price["output_pico"]
    return round(Decimal(total) / mix["output_tokens"])
