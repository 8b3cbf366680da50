"""A board's row of which nothing was measured."""

from typing import Any

from providers.boards.shapes import Row, Tokens


def made_row(sku: str, **changed: Any) -> Row:
    known: dict[str, Any] = {
        "offer_id": 1,
        "sku": sku,
        "provider": sku.partition("/")[0],
        "provider_name": sku,
        "kind": "external",
        "variant": "",
        "upstream_model": sku,
        "techniques": [],
        "quantization": "",
        "context_length": None,
        "state": "live",
        "state_reason": "",
        "routable": True,
        "not_routable": "",
        "rank": None,
        "paid_pico": None,
        "list": None,
        "blended_3_1_pico": None,
        "blended_7_2_1_pico": None,
        "effective": None,
        "requests": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
        "errors": {},
        "tokens": Tokens(input=0, cached=0, output=0),
        "ttft_ms": None,
        "output_tps": None,
        "e2e_ms": None,
        "uptime": None,
        "too_few": ["ttft_ms", "output_tps", "e2e_ms", "uptime"],
        "last_at": None,
        "speculation": None,
    }
    return Row(**{**known, **changed})
