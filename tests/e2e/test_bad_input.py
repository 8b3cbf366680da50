"""Bad input: a clear error in the caller's own dialect, and nothing charged, nothing changed."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import BODY_BYTES_MAX
from tests.e2e.house import (
    ANTHROPIC,
    DIALECTS,
    FOX,
    OPENAI,
    Customer,
    House,
    Wanted,
    error_of,
    question,
)
from tests.patience import PATIENCE_S

in_both_dialects = pytest.mark.parametrize("path", DIALECTS)
WRONG_KEY_TYPES = {OPENAI: "authentication_error", ANTHROPIC: "authentication_error"}
MANY_CALLS = 24


@pytest.fixture(scope="module")
def customer(house: House) -> Customer:
    """With credit and a paid request, so that there are registers to compare."""
    made = house.customer()
    assert house.ask(OPENAI, question(), made.headers).status_code == 200
    house.until_booked(made, events=1)
    return made


@pytest.fixture
def untouched(house: House, customer: Customer) -> Iterator[None]:
    before, calls = house.books(customer), len(house.upstream.calls(FOX))
    yield
    after = house.books(customer)
    assert after == before.but_forgotten(after)
    assert len(house.upstream.calls(FOX)) == calls


@in_both_dialects
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer"}, "missing_api_key"),
        ({"authorization": "Basic dXNlcjpwYXNz"}, "missing_api_key"),
        ({"authorization": "Bearer sk-of-somebody-else"}, "invalid_api_key"),
        ({"authorization": f"Bearer tk-{'0' * 12}-{'x' * 43}"}, "invalid_api_key"),
        ({"authorization": f"Bearer tk-{'x' * 8000}"}, "invalid_api_key"),
        ({"x-api-key": f"tk-{'1' * 12}-{'x' * 43}"}, "invalid_api_key"),
        ({"x-api-key": "tk-\xff\xfe"}, "invalid_api_key"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_a_missing_or_wrong_key_is_401(
    house: House, path: str, headers: dict[str, str], code: str
) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = house.ask(path, question(), raw)  # type: ignore[arg-type]

    assert answer.status_code == 401, answer.text
    error = error_of(answer, path)
    assert (error["type"], error["code"]) == (WRONG_KEY_TYPES[path], code)


def test_a_key_revoked_by_the_management_api_fails_at_its_next_call_in_every_process(
    house: House,
) -> None:
    # given a key that both processes have in memory
    made = house.customer()
    with ThreadPoolExecutor(8) as threads:
        first = threads.map(lambda _: _status(house, OPENAI, made), range(MANY_CALLS))
        assert set(first) == {200}
    house.until_booked(made, events=MANY_CALLS)

    # when it is revoked
    _manage(house, made, "DELETE", f"keys/{made.key_id}/")
    before = house.books(made)

    # then not one of the calls after that is served, whoever gets it
    with ThreadPoolExecutor(8) as threads:
        paths = [DIALECTS[n % 2] for n in range(MANY_CALLS)]
        statuses = threads.map(lambda path: _status(house, path, made), paths)
        assert set(statuses) == {401}
    after = house.books(made)
    assert after == before.but_forgotten(after)
    answer = house.ask(OPENAI, question(), made.headers)
    assert error_of(answer, OPENAI)["code"] in {"revoked_api_key", "invalid_api_key"}


def _status(house: House, path: str, customer: Customer) -> int:
    return house.ask(path, question(), customer.headers).status_code


def _manage(
    house: House, customer: Customer, method: str, path: str, **body: Any
) -> httpx.Response:
    url = f"{house.stack.console}/api/v1/tenants/{customer.slug}/{path}"
    answer = httpx.request(
        method, url, json=body or None, headers=customer.headers, trust_env=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert answer.is_success, answer.text
    return answer


@in_both_dialects
@pytest.mark.usefixtures("untouched")
def test_an_unknown_model_is_404_with_the_nearest_names(
    house: House, customer: Customer, path: str
) -> None:
    answer = house.ask(path, question("fox-goood"), customer.headers)

    assert answer.status_code == 404
    error = error_of(answer, path)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert FOX in error["message"]


@pytest.mark.usefixtures("untouched")
def test_a_model_that_the_key_may_not_use_is_403(house: House, customer: Customer) -> None:
    # given
    issued = _manage(house, customer, "POST", "keys/", name="narrow", models_allowed=["fox-tools"])
    headers = {"authorization": f"Bearer {issued.json()['secret']}"}

    # when / then
    for path in DIALECTS:
        answer = house.ask(path, question(), headers)
        assert answer.status_code == 403
        assert error_of(answer, path)["code"] == "model_not_allowed"


@pytest.mark.usefixtures("untouched")
def test_a_key_that_may_only_manage_is_403(house: House, customer: Customer) -> None:
    # given
    issued = _manage(house, customer, "POST", "keys/", name="desk", scopes=["management"])
    headers = {"authorization": f"Bearer {issued.json()['secret']}"}

    # when / then
    for path in DIALECTS:
        answer = house.ask(path, question(), headers)
        assert answer.status_code == 403
        assert error_of(answer, path)["type"] == "permission_error"


@pytest.mark.usefixtures("untouched")
def test_an_expired_key_is_401(house: House, customer: Customer) -> None:
    # given a key whose time is over before it was ever used
    issued = _manage(house, customer, "POST", "keys/", name="brief").json()
    past = datetime(2026, 1, 1, tzinfo=UTC)
    house.stack.sql(
        "UPDATE gateway_apikey SET expires_at = %s WHERE id = %s RETURNING id", past, issued["id"]
    )
    house.until_known()

    # when / then
    headers = {"authorization": f"Bearer {issued['secret']}"}
    for path in DIALECTS:
        answer = house.ask(path, question(max_tokens=-1), headers)
        assert answer.status_code == 401, answer.text
        assert error_of(answer, path)["code"] in {"expired_api_key", "invalid_api_key"}


BUDGETS = [
    (Wanted(credit_pico=1_000_000), "tenant", "credit", "0.000001"),
    (Wanted(credit_pico=0), "tenant", "credit", "0"),
    (Wanted(quotas=[("key", "day", 2_000_000)]), "key", "day", "0.000002"),
    (Wanted(quotas=[("team", "month", 3_000_000)]), "team", "month", "0.000003"),
    (Wanted(quotas=[("tenant", "lifetime", 1_000)]), "tenant", "lifetime", "0.000000001"),
]
RATES = [({"rpm": 0}, "rpm"), ({"tpm": 10}, "tpm"), ({"concurrency": 0}, "concurrency")]


@pytest.fixture(scope="module")
def poor(house: House) -> list[Customer]:
    return house.customers(*(wanted for wanted, *_ in BUDGETS))


@pytest.fixture(scope="module")
def hasty(house: House) -> list[Customer]:
    return house.customers(*(Wanted(rates={"team": limits}) for limits, _ in RATES))


@in_both_dialects
@pytest.mark.parametrize("number", range(len(BUDGETS)))
def test_over_budget_is_402_naming_the_scope_and_what_is_left(
    house: House, poor: list[Customer], path: str, number: int
) -> None:
    # given
    made = poor[number]
    _, scope, window, left = BUDGETS[number]
    before = house.books(made)

    # when
    answer = house.ask(path, question(), made.headers)

    # then
    assert answer.status_code == 402, answer.text
    error = error_of(answer, path)
    assert error["code"] == "over_budget"
    assert error["type"] == {OPENAI: "insufficient_quota", ANTHROPIC: "billing_error"}[path]
    said = error["metadata"]
    assert (said["scope"], said["window"], said["left_usd"]) == (scope, window, left)
    assert scope in error["message"]
    assert f"${left} left" in error["message"]
    after = house.books(made)
    assert after == before.but_forgotten(after)


@in_both_dialects
@pytest.mark.parametrize("number", range(len(RATES)))
def test_a_rate_limit_that_nothing_fits_into_is_no_matter_of_waiting(
    house: House, hasty: list[Customer], path: str, number: int
) -> None:
    # given
    made = hasty[number]
    before = house.books(made)

    # when
    answer = house.ask(path, question(), made.headers)

    # then
    assert answer.status_code == 400
    assert "retry-after" not in answer.headers
    error = error_of(answer, path)
    assert error["code"] == "exceeds_rate_limit"
    assert (error["metadata"]["scope"], error["metadata"]["window"]) == ("team", RATES[number][1])
    after = house.books(made)
    assert after == before.but_forgotten(after)


def _with(text: str) -> bytes:
    """A good body with this added; what it says twice counts as said last."""
    return (
        b'{"model":"fox-good","max_tokens":8,"messages":[{"role":"user","content":"x"}],'
        + text.encode()
        + b"}"
    )


DEEP = 100_000
BAD_BODIES: list[tuple[str, bytes, str | None]] = [
    ("nothing", b"", None),
    ("blank", b"  \n ", None),
    ("half an object", b'{"model": "fox-good", ', None),
    ("no object", b"[1, 2]", None),
    ("null", b"null", None),
    ("a string", b'"fox-good"', None),
    ("two objects", b"{}{}", None),
    ("single quotes", b"{'model': 'fox-good'}", None),
    ("trailing comma", b'{"model": "fox-good",}', None),
    ("binary", b"\x00\xff\xfe\x80", None),
    ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", None),
    ("bad utf-8", _with('"user":"x"').replace(b'"x"}', b'"\xc3\x28"}'), None),
    ("half a surrogate", _with('"user":"\\ud800"'), None),
    ("no model", b'{"max_tokens":8,"messages":[{"role":"user","content":"x"}]}', "model"),
    ("no messages", b'{"model":"fox-good","max_tokens":8}', "messages"),
    ("messages empty", _with('"messages":[]'), "messages"),
    ("messages a string", _with('"messages":"hello"'), "messages"),
    ("message a number", _with('"messages":[7]'), "messages[0]"),
    ("unknown role", _with('"messages":[{"role":"wizard","content":"x"}]'), "messages[0].role"),
    ("content a number", _with('"messages":[{"role":"user","content":7}]'), "messages[0].content"),
    ("model a number", _with('"model":7'), "model"),
    ("model empty", _with('"model":""'), "model"),
    ("model endless", _with(f'"model":"{"m" * 5000}"'), "model"),
    ("stream a string", _with('"stream":"yes"'), "stream"),
    ("max_tokens negative", _with('"max_tokens":-1'), "max_tokens"),
    ("max_tokens zero", _with('"max_tokens":0'), "max_tokens"),
    ("max_tokens a string", _with('"max_tokens":"8"'), "max_tokens"),
    ("max_tokens a fraction", _with('"max_tokens":8.5'), "max_tokens"),
    ("max_tokens absurd", _with('"max_tokens":99999999999'), "max_tokens"),
    ("max_tokens beyond 64 bits", _with('"max_tokens":' + "9" * 40), "max_tokens"),
    ("max_tokens with exponent", _with('"max_tokens":1e300'), "max_tokens"),
    ("temperature negative", _with('"temperature":-0.1'), "temperature"),
    ("temperature absurd", _with('"temperature":1e9'), "temperature"),
    ("temperature NaN", _with('"temperature":NaN'), None),
    ("temperature Infinity", _with('"temperature":Infinity'), None),
    ("temperature beyond doubles", _with('"temperature":1e400'), None),
    ("top_p above one", _with('"top_p":1.5'), "top_p"),
    ("NaN where nobody looks", _with('"made_up":NaN'), None),
    ("tools a string", _with('"tools":"all"'), "tools"),
    ("unknown tier", _with('"service_tier":"platinum"'), "service_tier"),
    ("price ceiling negative", _with('"provider":{"max_price":{"prompt":-1}}'),
     "provider.max_price.prompt"),
    ("unknown sort", _with('"provider":{"sort":"luck"}'), "provider.sort"),
    ("deep lists", _with('"x":' + "[" * DEEP + "]" * DEEP), None),
    ("deep objects", _with('"x":' + '{"a":' * DEEP + "1" + "}" * DEEP), None),
    ("deep in a message", _with('"messages":[{"role":"user","content":' + "[" * 200 + "]" * 200
     + "}]"), None),
]  # fmt: skip


@in_both_dialects
@pytest.mark.parametrize(
    ("body", "param"), [row[1:] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES]
)
@pytest.mark.usefixtures("untouched")
def test_a_bad_body_is_400_and_names_the_field(
    house: House, customer: Customer, path: str, body: bytes, param: str | None
) -> None:
    answer = house.ask(path, body, customer.headers)

    assert answer.status_code == 400, answer.text
    error = error_of(answer, path)
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 500
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ('"n":0', "n"),
        ('"n":1000000', "n"),
        ('"max_completion_tokens":-5', "max_completion_tokens"),
        ('"presence_penalty":-3', "presence_penalty"),
        ('"logit_bias":{"50256":1000}', "logit_bias[...]"),
        ('"top_logprobs":10000', "top_logprobs"),
        ('"stop":7', "stop"),
        ('"seed":' + "9" * 30, "seed"),
        ('"response_format":"json"', "response_format"),
        ('"messages":[{"role":"tool","content":"x"}]', "messages[0].tool_call_id"),
        ('"messages":[{"role":"user","content":[{"type":"text"}]}]', "messages[0].content[0].text"),
        ('"tools":[{"type":"function","function":{}}]', "tools[0].function.name"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_absurd_fields_of_openai_are_400(
    house: House, customer: Customer, field: str, param: str
) -> None:
    answer = house.ask(OPENAI, _with(field), customer.headers)

    assert answer.status_code == 400, answer.text
    assert error_of(answer, OPENAI)["param"] == param


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ('"top_k":-1', "top_k"),
        ('"stop_sequences":"x"', "stop_sequences"),
        ('"thinking":{"type":"enabled","budget_tokens":-1}', "thinking.budget_tokens"),
        ('"messages":[{"role":"user","content":[{"type":"tool_result"}]}]',
         "messages[0].content[0].tool_use_id"),
        ('"tools":[{"input_schema":{}}]', "tools[0].name"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untouched")
def test_absurd_fields_of_anthropic_are_400(
    house: House, customer: Customer, field: str, param: str
) -> None:
    answer = house.ask(ANTHROPIC, _with(field), customer.headers)

    assert answer.status_code == 400, answer.text
    assert error_of(answer, ANTHROPIC)["param"] == param


@in_both_dialects
@pytest.mark.usefixtures("untouched")
def test_a_body_above_the_limit_is_413_whether_or_not_it_declares_its_length(
    house: House, customer: Customer, path: str
) -> None:
    whole = _with(f'"pad":"{"x" * BODY_BYTES_MAX}"')
    pieces = [whole[at : at + 65_536] for at in range(0, len(whole), 65_536)]

    declared = house.ask(path, whole, customer.headers)
    chunked = httpx.post(
        f"{house.stack.api}{path}",
        content=iter(pieces),
        headers=customer.headers,
        timeout=PATIENCE_S,
        trust_env=False,
    )

    for answer in (declared, chunked):
        assert answer.status_code == 413, answer.text
        error = error_of(answer, path)
        assert str(BODY_BYTES_MAX) in error["message"]
        assert error["code"] == "request_too_large"


@in_both_dialects
@pytest.mark.parametrize(
    "rest",
    [
        b'transfer-encoding: chunked\r\n\r\n5\r\n{"mod\r\nnonsense\r\n',
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: -5\r\n\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}   ",
    ],
)
@pytest.mark.usefixtures("untouched")
def test_a_body_that_is_not_framed_as_http_says_is_400(
    house: House, customer: Customer, path: str, rest: bytes
) -> None:
    host, _, port = house.stack.api.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {customer.key}\r\n"

    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as raw:
        raw.sendall(head.encode() + rest)
        answer = raw.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400 "), answer


@in_both_dialects
def test_a_large_body_below_the_limit_is_served(house: House, path: str) -> None:
    made = house.customer()
    question_ = question(messages=[{"role": "user", "content": "fox " * (BODY_BYTES_MAX // 5)}])

    answer = house.ask(path, question_, made.headers)

    # It fits the limit of bytes and not the model: an error of the request, not of ours.
    assert answer.status_code == 400
    assert error_of(answer, path)["code"] == "context_length_exceeded"


@in_both_dialects
@pytest.mark.usefixtures("untouched")
def test_a_model_that_nobody_sells_is_404_with_the_reason_of_each_offer(
    house: House, customer: Customer, path: str
) -> None:
    # given a model of the catalogue that nobody here has a credential for
    answer = house.ask(path, question("gpt-4o"), customer.headers)

    # then
    assert answer.status_code == 404, answer.text
    assert answer.headers["x-should-retry"] == "false"
    error = error_of(answer, path)
    assert error["code"] == "model_not_found"
    reasons = {reason["offer"]: reason["reason"] for reason in error["metadata"]["reasons"]}
    assert reasons["openai/gpt-4o"] == "no credential"
    assert all(reasons.values())


@pytest.mark.usefixtures("untouched")
def test_wrong_paths_and_methods_have_the_right_status(house: House, customer: Customer) -> None:
    def status(method: str, path: str) -> int:
        url = f"{house.stack.api}{path}"
        return httpx.request(
            method, url, headers=customer.headers, trust_env=False, timeout=PATIENCE_S
        ).status_code

    assert status("GET", OPENAI) == 405
    assert status("DELETE", ANTHROPIC) == 405
    assert status("POST", "/v1/models") == 405
    assert status("GET", "/v1/nothing") == 404
    assert status("GET", "/admin/") == 404
    assert status("GET", "/overview/") == 404
