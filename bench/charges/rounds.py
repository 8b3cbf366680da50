"""Requests that end without a count, charged as the data plane charges them, beside the truth.

The seller counts with a tokenizer that the gateway has not, and streams a few tokens a chunk. What
is measured is the shipped code from the caller's body to the charge; only the network is left out.
"""

import gzip
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from billing import rating
from billing.money import nano_ceil
from billing.rating import Price
from billing.usage import CanonicalUsage
from gateway.clocks.stopwatch import Stopwatch, SystemClock
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Attempt, Exchange, Hold
from gateway.dataplane.inbound.request_id import new_request_id
from gateway.dataplane.settling import charges, counting
from gateway.dataplane.surfaces import openai_chat
from gateway.estimates.ratios import Ratios
from gateway.routing import bounds
from gateway.routing.policies import PolicyView
from gateway.routing.router import Ranking
from providers.chat import Candidate, Chunk, OfferView

KEPT: Final = Path(__file__).resolve().parents[2] / "tests" / "data" / "counted_texts.json.gz"
# Finished answers of these tenants come first, and teach; the others call for the first time.
TAUGHT: Final = 120
KNOWN_TENANTS: Final = 6
# How the others end; a held one is what it is settled at when nobody decides.
ENDS: Final = ("client_cancelled", "upstream_cut", "client_cancelled", "no usage", "held")
OUTPUT_TOKENS: Final = 600
PRICE: Final = Price(
    version=1,
    sku="seller/model",
    input_pico=2_000_000,
    cache_read_pico=500_000,
    cache_write_5m_pico=2_500_000,
    cache_write_1h_pico=4_000_000,
    output_pico=8_000_000,
    reasoning_pico=8_000_000,
)
OFFER: Final = OfferView(
    id=1,
    sku=PRICE.sku,
    provider="seller",
    provider_name="Seller",
    model="model",
    upstream_model="model",
    wire="openai",
    base_url="https://seller.example/v1",
    headers={},
    context_length=32_768,
    max_output_tokens=8_192,
    prices=(PRICE,),
    in_house=False,
)


class Counted(msgspec.Struct):
    """One of the kept texts."""

    kind: str
    prompt: str
    prompt_tokens: int
    answer: list[tuple[str, int]]


@dataclass
class Reader:
    """What a wire's reader knows when the answer ends."""

    usage: CanonicalUsage | None = None
    usage_problem: str = ""
    finished: bool = False
    finish_reason: str = ""
    upstream_id: str = ""
    served_tier: str = ""
    usage_extra: dict[str, Any] = field(default_factory=dict)
    prompt_usage: CanonicalUsage | None = None


@dataclass(frozen=True, slots=True)
class Row:
    kind: str
    end: str
    is_first_call: bool
    true_pico: int
    charged_pico: int
    hold_pico: int

    @property
    def off(self) -> float:
        return self.charged_pico / self.true_pico - 1


def texts() -> list[Counted]:
    return msgspec.json.decode(gzip.decompress(KEPT.read_bytes()), type=list[Counted])


def charged(ratios: Ratios) -> Iterator[Row]:
    """Every text that does not teach, charged without its seller's count."""
    known = texts()
    for number, text in enumerate(known[:TAUGHT]):
        _teach(ratios, text, tenant=number % KNOWN_TENANTS)
    for number, text in enumerate(known[TAUGHT:]):
        is_first = number % 3 == 0
        tenant = 1_000 + number if is_first else number % KNOWN_TENANTS
        yield _charged(ratios, text, tenant=tenant, end=ENDS[number % len(ENDS)], first=is_first)


def _teach(ratios: Ratios, text: Counted, *, tenant: int) -> None:
    exchange, attempt = _exchange(ratios, text, tenant)
    shown = _show(attempt, text.answer)
    attempt.outcome = "ok"
    attempt.reader.finished = True
    # The end of an answer is a token that brings no text.
    attempt.reader.usage = CanonicalUsage(input_tokens=text.prompt_tokens, output_tokens=shown + 1)
    counting.teach(exchange)


def _charged(ratios: Ratios, text: Counted, *, tenant: int, end: str, first: bool) -> Row:
    exchange, attempt = _exchange(ratios, text, tenant)
    is_whole = end in ("no usage", "held")
    shown = _show(attempt, text.answer if is_whole else text.answer[: len(text.answer) // 2])
    attempt.outcome = "ok" if is_whole else end
    attempt.reader.finished = is_whole
    attempt.reader.usage_problem = "negative input_tokens" if end == "held" else ""
    charge = charges.charge_of(exchange, attempt)
    usage = CanonicalUsage(input_tokens=text.prompt_tokens, output_tokens=shown)
    return Row(
        kind=text.kind,
        end=end,
        is_first_call=first,
        true_pico=rating.rate(usage, PRICE),
        charged_pico=charge.estimate.tenant_pico if charge.estimate else charge.tenant_pico,
        hold_pico=exchange.hold.nano * 1000,
    )


def _show(attempt: Attempt, chunks: Sequence[tuple[str, int]]) -> int:
    """Streamed to the client; how many tokens that was."""
    for piece, _ in chunks:
        chunk = Chunk(b"", text=piece)
        attempt.read.add(chunk)
        attempt.show(chunk)
    return sum(tokens for _, tokens in chunks)


def _exchange(ratios: Ratios, text: Counted, tenant: int) -> tuple[Exchange, Attempt]:
    body = {
        "model": "model",
        "stream": True,
        "max_tokens": OUTPUT_TOKENS,
        "messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": text.prompt},
        ],
    }
    request = openai_chat.parse(msgspec.json.encode(body), {})
    input_bound = bounds.input_bound(request, OFFER)
    worst_pico = rating.worst_case((PRICE,), input_bound=input_bound, output_bound=OUTPUT_TOKENS)
    candidate = Candidate(
        offer=OFFER,
        prices=(PRICE,),
        expected_pico=worst_pico,
        worst_pico=worst_pico,
        score=0.0,
        why="",
        input_bound=input_bound,
        output_bound=OUTPUT_TOKENS,
        max_output_tokens=OUTPUT_TOKENS,
        cost_prices=(PRICE,),
    )
    now_ms = int(time.time() * 1000)
    reader: Any = Reader()
    attempt = Attempt(1, candidate, reader, Stopwatch(SystemClock()))
    none: Any = None
    nano = nano_ceil(worst_pico)
    exchange = Exchange(
        request_id=new_request_id(now_ms),
        started_ms=now_ms,
        deadline_ms=now_ms + 60_000,
        principal=_principal(tenant),
        request=request,
        client=none,
        writer=none,
        ranking=Ranking("model", "cheapest", True, (candidate,), (), 0, 0),
        candidates=(candidate,),
        hold=Hold(nano, nano, 0, input_bound, OUTPUT_TOKENS, ()),
        attempts=[attempt],
        ratios=ratios,
    )
    return exchange, attempt


def _principal(tenant: int) -> Principal:
    return Principal(
        key_id=1,
        public_id="k",
        name="key",
        tenant_id=tenant,
        tenant_slug="t",
        team_id=None,
        scopes=frozenset({"inference"}),
        models_allowed=frozenset(),
        expires_at_ms=None,
        max_output_tokens=0,
        cache_salt="",
        spend=(),
        rates=(),
        policy=PolicyView(),
    )
