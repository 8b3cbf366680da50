"""How an answer begins and ends for its client: headers, receipts, errors. No server needed."""

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from billing.outcomes import CLIENT_CANCELLED, DEADLINE, OK, STOPPED, UPSTREAM_CUT, UPSTREAM_ERROR
from billing.usage import CanonicalUsage
from gateway.dataplane import verdicts
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.inbound.watchdog import ClientLeft, ClientStalled
from gateway.errors import AllAttemptsFailed, DeadlineExceeded, GatewayError, InvalidRequest
from gateway.routing.breaker import Breaker
from providers import errors as of_providers
from providers.chat import Chunk, Held, Receipt
from providers.errors import (
    AccountDoubted,
    AuthFailed,
    BadRequest,
    CannotSay,
    ConnectFailed,
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    Overloaded,
    OwnTrouble,
    ProtocolError,
    ProviderError,
    RateLimited,
    RequestRefused,
    StreamBroken,
    Timeout,
    UpstreamFailed,
)
from tests.gateway.dataplane.settling import test_dataplane_charges as table

RECEIPT = Receipt(
    request_id="r-1",
    model="fox",
    provider="acme",
    sku="acme/fox",
    usage=CanonicalUsage(input_tokens=3, output_tokens=5),
    usage_source="provider",
    cost_pico=37_500,
)


@dataclass
class Watchdog:
    client_left: bool = False
    granted_s: float = 0.0

    def grant(self, seconds: float) -> None:
        self.granted_s = seconds


@dataclass
class Client:
    """Notes what it is sent; leaves or stalls when it is told to."""

    watchdog: Watchdog = field(default_factory=Watchdog)
    started: bool = False
    cut_off: bool = False
    problem: type[Exception] | None = None
    sent: list[tuple[str, Any]] = field(default_factory=list)

    async def start(self, status: int, head: Any) -> None:
        self._say("start", status)
        self.started = True

    async def end(self, data: bytes) -> None:
        self._say("end", data)

    async def answer(self, status: int, head: Any, body: bytes) -> None:
        self._say("answer", (status, dict(head), body))

    def cut(self) -> None:
        self.cut_off = True

    def _say(self, what: str, said: Any) -> None:
        if self.problem is not None:
            raise self.problem
        self.sent.append((what, said))


@dataclass
class Writer:
    content_type: bytes = b"application/json"
    model: str = ""

    def whole(self, chunks: list[Chunk], receipt: Receipt) -> bytes:
        return b"whole:" + b"".join(chunk.raw for chunk in chunks)

    def end(self, receipt: Receipt) -> bytes:
        return f"end:{receipt.cost_pico}".encode()

    def error(self, *, status: int, code: str, message: str, receipt: Receipt | None) -> bytes:
        assert receipt is not None, "what it cost so far is told"
        return f"error:{status}:{code}".encode()


def ended(
    outcome: str, failure: ProviderError | None = None, *, stream: bool = True, **client: Any
) -> tuple[Exchange, Client]:
    made = table.exchange(table.attempt(outcome, failure=failure))
    other = Client(**client)
    request = replace(table.REQUEST, stream=stream)
    chunks = [Chunk(b"a"), Chunk(b"b")]
    made = replace(made, client=other, writer=Writer(), request=request, chunks=chunks)  # type: ignore[arg-type]
    return made, other


async def tell(
    made: Exchange, *, receipt: Receipt = RECEIPT, breaker: Breaker | None = None
) -> None:
    await verdicts.tell(made, receipt, breaker=breaker or Breaker(), now_ms=0, stall_s=30)


# --- what the last bytes are --------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [OK, STOPPED])
async def test_a_stream_ends_with_its_receipt(outcome: str) -> None:
    made, client = ended(outcome, started=True)

    await tell(made)

    assert client.sent == [("end", b"end:37500")]
    assert client.watchdog.granted_s == 30


async def test_a_stream_without_any_content_begins_first() -> None:
    made, client = ended(OK)

    await tell(made)

    assert client.sent == [("start", 200), ("end", b"end:37500")]


async def test_a_whole_answer_is_sent_at_once_with_its_cost_in_a_header() -> None:
    made, client = ended(OK, stream=False)

    await tell(made)

    ((what, (status, head, body)),) = client.sent
    assert (what, status, body) == ("answer", 200, b"whole:ab")
    assert head[b"x-tokenhouse-cost"] == b"0.0000000375"
    assert head[b"x-tokenhouse-offer"] == b"acme/fox"
    assert b"x-tokenhouse-held" not in head


async def test_a_broken_stream_ends_with_an_error_event_and_is_never_shown_as_a_good_one() -> None:
    failure = StreamBroken("cut", after_first_byte=True)
    made, client = ended(UPSTREAM_CUT, failure, started=True)

    await tell(made)

    assert client.sent == [("end", b"error:502:upstream_cut")]


async def test_before_the_first_byte_it_is_a_refusal_with_a_status() -> None:
    made, client = ended(UPSTREAM_ERROR, UpstreamFailed("500", status=500))

    with pytest.raises(AllAttemptsFailed) as refusal:
        await tell(made)

    assert (refusal.value.status, client.sent) == (502, [])


async def test_who_has_left_is_told_nothing() -> None:
    for outcome in (OK, CLIENT_CANCELLED, UPSTREAM_ERROR):
        made, client = ended(outcome, UpstreamFailed("x") if outcome != OK else None)
        client.watchdog.client_left = True

        await tell(made)

        assert client.sent == []


async def test_who_leaves_while_it_is_told_is_no_error() -> None:
    made, client = ended(OK, started=True, problem=ClientLeft)

    await tell(made)

    assert (client.sent, client.cut_off) == ([], False)


async def test_who_does_not_take_the_last_bytes_is_cut() -> None:
    made, client = ended(OK, started=True, problem=ClientStalled)

    await tell(made)

    assert client.cut_off


async def test_who_was_cut_before_is_not_written_to_again() -> None:
    failure = StreamBroken("cut", after_first_byte=True)
    made, client = ended(UPSTREAM_CUT, failure, started=True, cut_off=True)

    await tell(made)

    assert client.sent == []


# --- headers ------------------------------------------------------------------------------------


def head(made: Exchange) -> dict[bytes, bytes]:
    return dict(verdicts.head_of(made))


def test_what_lowered_the_limit_is_told_with_it() -> None:
    made, _ = ended(OK)
    cut = msgspec.structs.replace(table.CANDIDATE, cut_by="max_cost", limited_by="tenant")
    limited = msgspec.structs.replace(table.CANDIDATE, limited_by="tenant")

    assert b"x-tokenhouse-max-tokens" not in head(made)
    made.last.candidate = limited
    assert head(made)[b"x-tokenhouse-max-tokens"] == b"100; by=tenant"
    made.last.candidate = cut
    assert head(made)[b"x-tokenhouse-max-tokens"] == b"100; by=max_cost"


def test_nobody_keeps_an_answer_and_each_names_its_offer() -> None:
    made, _ = ended(OK)

    assert head(made)[b"cache-control"] == b"no-store"
    assert head(made)[b"x-tokenhouse-offer"] == table.OFFER.sku.encode()


def test_a_stream_tells_what_its_session_cost_before_it() -> None:
    made, _ = ended(OK)
    whole, _ = ended(OK, stream=False)
    made.session_nano = whole.session_nano = 1_500_000

    assert head(made)[b"x-session-cost"] == b"0.0015"
    assert b"x-session-cost" not in head(whole), "a whole answer tells what it costs with it"


def test_what_is_held_is_told_with_its_reason_as_a_header_can_carry_it() -> None:
    made, _ = ended(OK, stream=False)
    held = Held(amount_pico=2_000_000, reason="tóken\r\ncounts", estimate_pico=1)

    told, _ = verdicts.whole(made, replace(RECEIPT, held=held, session_cost_pico=5_000_000))

    found = dict(told)
    assert found[b"x-tokenhouse-held"] == b"0.000002"
    assert found[b"x-tokenhouse-held-reason"] == b"t?ken  counts"
    assert found[b"x-session-cost"] == b"0.000005"


# --- errors -------------------------------------------------------------------------------------


def error(failure: ProviderError, outcome: str = UPSTREAM_ERROR, **more: Any) -> GatewayError:
    made, _ = ended(outcome, failure)
    return verdicts.error_of(made, **more)


TOLD: list[tuple[ProviderError, int, str, str]] = [
    (OwnTrouble("no descriptors"), 503, "api_error", "gateway_trouble"),
    (ConnectFailed("10.0.0.7:443"), 502, "api_error", "connect_failed"),
    (Timeout("silent"), 504, "timeout_error", "upstream_timeout"),
    (Overloaded("busy", status=529), 503, "api_error", "upstream_overloaded"),
    (UpstreamFailed("500", status=500), 502, "api_error", "upstream_failed"),
    (RateLimited("slow down", status=429), 429, "rate_limit_error", "upstream_rate_limited"),
    (AuthFailed("bad key", status=401), 503, "api_error", "upstream_credential_refused"),
    (AccountDoubted("pay", status=402), 503, "api_error", "upstream_account_doubted"),
    (ModelNotFound("gone", status=404), 503, "api_error", "upstream_model_not_found"),
    (StreamBroken("cut", after_first_byte=False), 502, "api_error", "upstream_cut"),
    (ProtocolError("nonsense"), 502, "api_error", "upstream_protocol_error"),
    (BadRequest("wrong"), 400, "invalid_request_error", "invalid_request"),
    (RequestRefused("wrong here"), 400, "invalid_request_error", "upstream_request_refused"),
    (CannotSay("no words"), 400, "invalid_request_error", "unsupported_by_model"),
    (ContextTooLong("long"), 400, "invalid_request_error", "context_length_exceeded"),
    (ContentFiltered("no"), 400, "invalid_request_error", "content_filter"),
]


@pytest.mark.parametrize(("failure", "status", "kind", "code"), TOLD)
def test_a_seller_s_failure_has_one_status_and_code(
    failure: ProviderError, status: int, kind: str, code: str
) -> None:
    told = error(failure)

    assert (told.status, told.type, told.code) == (status, kind, code)
    assert told.message


def test_no_failure_is_left_out_of_the_table() -> None:
    kinds = {
        each
        for _, each in inspect.getmembers(of_providers, inspect.isclass)
        if issubclass(each, ProviderError) and each is not ProviderError
    }
    assert {type(failure) for failure, *_ in TOLD} == kinds


@pytest.mark.parametrize(("failure", "status", "kind", "code"), TOLD)
def test_a_seller_never_makes_the_caller_s_key_wrong_or_its_purse_empty(
    failure: ProviderError, status: int, kind: str, code: str
) -> None:
    """What a seller says of our credential is our outage."""
    assert error(failure).status not in (401, 402, 403)


@pytest.mark.parametrize("failure", [each for each, *_ in TOLD if each.permanent])
def test_what_no_repetition_mends_says_so(failure: ProviderError) -> None:
    assert not error(failure).retryable


@pytest.mark.parametrize("failure", [each for each, *_ in TOLD if isinstance(each, BadRequest)])
def test_a_request_s_own_fault_is_not_blamed_on_a_seller(failure: BadRequest) -> None:
    failure.param = "messages"
    told = error(failure)

    assert isinstance(told, InvalidRequest)
    assert (told.message, told.param) == (failure.message, "messages")


def test_the_wait_is_the_longer_of_the_seller_s_and_the_breaker_s() -> None:
    asked = RateLimited("slow down", retry_after_s=3.2)

    assert error(asked).retry_after_s == 3
    assert error(asked, rest_ms=8_001).retry_after_s == 9
    assert error(RateLimited("slow down")).retry_after_s == 1
    assert error(Overloaded("busy"), rest_ms=1).retry_after_s == 1


def test_a_failure_that_no_waiting_mends_asks_for_none() -> None:
    assert error(UpstreamFailed("500"), rest_ms=9_000).retry_after_s is None
    assert error(ProtocolError("x"), rest_ms=9_000).retry_after_s is None


def test_the_seller_is_named_once() -> None:
    assert error(UpstreamFailed("it is down")).message == "Acme: it is down"
    assert error(UpstreamFailed("Acme is down")).message == "Acme is down"
    assert error(UpstreamFailed("ACME is down")).message == "ACME is down"


def test_hosts_and_paths_stay_here_and_the_request_id_leads_to_them() -> None:
    made, _ = ended(UPSTREAM_ERROR, ConnectFailed("10.0.0.7:443 refused"))

    told = verdicts.error_of(made)

    assert "10.0.0.7" not in told.message + str(told.detail)
    assert told.message.endswith(f"(request {made.request_id})")


@pytest.mark.parametrize("failure", [None, Timeout("late")])
def test_the_end_of_its_time_is_told_as_that(failure: ProviderError | None) -> None:
    made, _ = ended(DEADLINE, failure)

    told = verdicts.error_of(made)

    assert isinstance(told, DeadlineExceeded)
    assert (told.status, told.code) == (504, "deadline_exceeded")


def test_every_attempt_is_told_in_its_order() -> None:
    made, _ = ended(UPSTREAM_ERROR, UpstreamFailed("500"))
    second = table.attempt(UPSTREAM_ERROR, failure=RateLimited("slow"))
    made.attempts.append(second)

    told = verdicts.error_of(made)

    assert [each["error"] for each in told.detail["attempts"]] == [
        "upstream_failed",
        "upstream_rate_limited",
    ]
    assert told.status == 429, "the last one's"
