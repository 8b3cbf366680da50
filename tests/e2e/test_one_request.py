"""One request from HTTP to the leaderboard; every figure is compared with one computed by hand."""

from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from tests.e2e.stack import MODEL, Stack, sse_events

PICO = Decimal(10) ** 12
# Two seconds are promised on a machine that does nothing else.
POSTED_WITHIN_S = 4.0
SNAPSHOT_AGE_MAX = timedelta(seconds=20)
Price = dict[str, int]


def _price(stack: Stack, version: int, sku: str, *, since: datetime, until: datetime) -> Price:
    """The price with this id, if it is one of the offer that was in force then: that of our own
    machines moves by itself every few minutes."""
    names = ("id", "input_pico", "cache_read_pico", "output_pico")
    [row] = stack.sql(
        f"SELECT {', '.join('v.' + n for n in names)} FROM billing_priceversion v "
        "JOIN billing_sku s ON s.id = v.sku_id WHERE v.id = %s AND s.code = %s "
        "AND v.service_tier = 0 AND v.context_over = 0 AND v.during && tstzrange(%s, %s, '[]')",
        version,
        sku,
        since,
        until,
    )
    return dict(zip(names, row, strict=True))


def _by_hand(usage: dict[str, Any], price: Price) -> int:
    cached = int(usage.get("prompt_tokens_details", {}).get("cached_tokens", 0))
    uncached = int(usage["prompt_tokens"]) - cached
    return (
        uncached * price["input_pico"]
        + cached * price["cache_read_pico"]
        + int(usage["completion_tokens"]) * price["output_pico"]
    )


def test_a_streamed_request_is_paid_posted_shown_and_ranked(stack: Stack) -> None:
    # given
    key = stack.api_keys[0]
    tenant, api_key_id = stack.sql(
        "SELECT tenant_id, id FROM gateway_apikey WHERE public_id = %s", key.split("-")[1]
    )[0]

    # when one answer is streamed
    answer = stack.chat(key=key, stream=True, max_tokens=12)

    # then its last event carries usage and a cost
    assert answer.status_code == 200, answer.text
    events = sse_events(answer)
    usage = events[-1]["usage"]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
    request_id = answer.headers["x-request-id"]
    sku = answer.headers["x-tokenhouse-offer"]

    # and soon there is one usage event, posted
    [(version, occurred_at, transfer, *event)] = stack.eventually(
        lambda: stack.sql(
            "SELECT price_version_id, occurred_at, transfer_id, tenant_id, api_key_id, sku, "
            "input_tokens, output_tokens, tenant_cost_pico, state, outcome "
            "FROM billing_usageevent WHERE request_id = %s",
            request_id,
        ),
        timeout_s=POSTED_WITHIN_S,
    )
    # and both say the cost that a person can compute from the price that was pinned
    price = _price(stack, version, sku, since=occurred_at - SNAPSHOT_AGE_MAX, until=occurred_at)
    cost_pico = _by_hand(usage, price)
    assert usage["cost"] * PICO == cost_pico > 0
    assert event == [
        tenant,
        api_key_id,
        sku,
        int(usage["prompt_tokens"]),
        int(usage["completion_tokens"]),
        cost_pico,
        "posted",
        "ok",
    ]

    # and its transfer is balanced, with the tenant's credit debited by all it carries
    [(balance,)] = stack.sql(
        "SELECT sum(amount_pico) FROM billing_entry WHERE transfer_id = %s", transfer
    )
    assert balance == 0
    assert _debited(stack, tenant, transfer) == _carried(stack, tenant, transfer) >= cost_pico

    # and the dashboard shows the request with the cost to the last digit, and who served
    with stack.sign_in() as browser:
        page = browser.get(f"/requests/{request_id}/")
    assert page.status_code == 200
    digits = f"{cost_pico:013d}"
    assert digits[-12:] in "".join(c for c in page.text if c.isalnum() or c in ".$")
    assert sku.rpartition("/")[2] in page.text

    # and the board ranks the offer at the price that it published
    board, row = stack.eventually(partial(_ranked, stack, sku))
    computed_at = datetime.fromisoformat(board["computed_at"])
    shown = row["list"]
    listed = _price(stack, shown["price_version"], sku, since=computed_at, until=computed_at)
    assert shown["output_pico"] == listed["output_pico"]
    fewest, most = _effective_by_hand(board["mix"], listed, row["effective"])
    assert fewest <= row["effective"]["pico"] <= most


def _debited(stack: Stack, tenant: int, transfer: int) -> int:
    """What a transfer took from the tenant's credit."""
    [(total,)] = stack.sql(
        "SELECT sum(e.amount_pico) FROM billing_entry e JOIN billing_account a "
        "ON a.id = e.account_id WHERE a.kind = 'tenant_credit' AND a.tenant_id = %s "
        "AND e.transfer_id = %s",
        tenant,
        transfer,
    )
    return int(total)


def _carried(stack: Stack, tenant: int, transfer: int) -> int:
    """What the events that it was posted for cost the tenant."""
    [(total,)] = stack.sql(
        "SELECT sum(tenant_cost_pico) FROM billing_usageevent "
        "WHERE tenant_id = %s AND transfer_id = %s",
        tenant,
        transfer,
    )
    return int(total)


def _whole_board(stack: Stack) -> dict[str, Any]:
    answer = stack.get(f"/api/v1/leaderboards/{MODEL}/?window=1h")
    assert answer.status_code == 200, answer.text
    board: dict[str, Any] = answer.json()
    return board


def _ranked(stack: Stack, sku: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The board and the offer's row of it, of one reading: the mix changes with each request."""
    board = _whole_board(stack)
    rows = [row for row in board["rows"] if row["sku"] == sku and row["requests"] >= 1]
    return (board, rows[0]) if rows else None


def _effective_by_hand(mix: dict[str, int], price: Price, said: dict[str, Any]) -> tuple[int, int]:
    """The mix at list price, with as many tokens cached as the offer is said to find: none before
    it served enough, else a share that is told to three digits."""
    found, told_to = Decimal(str(said["cache_share"])), Decimal("0.0005")
    assert said["basis"] in {"list", "measured"}
    if said["basis"] == "list":
        assert found == 0
        told_to = Decimal(0)
    tokens_in = mix["uncached_tokens"] + mix["cached_tokens"]
    fewest, most = (
        (
            tokens_in
            * (price["input_pico"] - share * (price["input_pico"] - price["cache_read_pico"]))
            + mix["output_tokens"] * price["output_pico"]
        )
        / mix["output_tokens"]
        for share in (found + told_to, found - told_to)
    )
    return round(fewest), round(most)
