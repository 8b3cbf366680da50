"""What an upstream's error answer means."""

import pytest

from providers import errors
from providers.wires.failures import failure, in_stream

OPENAI = b'{"error":{"message":"Words.","type":"%b","param":null,"code":%b}}'


def openai_error(type_: bytes = b"x", code: bytes = b"null") -> bytes:
    return OPENAI % (type_, code)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, openai_error(), errors.BadRequest),
        (400, openai_error(code=b'"context_length_exceeded"'), errors.ContextTooLong),
        (400, openai_error(code=b'"content_filter"'), errors.ContentFiltered),
        (401, openai_error(), errors.AuthFailed),
        (402, openai_error(), errors.AuthFailed),
        (403, openai_error(), errors.AuthFailed),
        (404, openai_error(), errors.ModelNotFound),
        (408, openai_error(), errors.Timeout),
        (413, openai_error(), errors.BadRequest),
        (418, openai_error(), errors.BadRequest),
        (422, b'{"detail":[{"loc":["body","n"],"msg":"no"}]}', errors.BadRequest),
        (429, openai_error(), errors.RateLimited),
        (429, openai_error(b"insufficient_quota"), errors.AuthFailed),
        (500, openai_error(), errors.UpstreamFailed),
        (502, b"<html>Bad Gateway</html>", errors.UpstreamFailed),
        (503, openai_error(), errors.Overloaded),
        (504, b"", errors.Timeout),
        (529, b'{"type":"error","error":{"type":"overloaded_error"}}', errors.Overloaded),
        (302, b"", errors.ProtocolError),
        (403, b"<html>Attention Required</html>", errors.UpstreamFailed),
        (
            403,
            b'{"error":{"code":403,"message":"flagged","metadata":{"flagged_input":"..."}}}',
            errors.ContentFiltered,
        ),
    ],
)
def test_the_status_decides_first_then_the_body(
    status: int, body: bytes, expected: type[errors.ProviderError]
) -> None:
    problem = failure(status, {}, body, "openai")

    assert type(problem) is expected
    assert problem.status == status


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The input exceeds the context window of 4096 tokens.",
    ],
)
def test_vendors_words_for_a_prompt_that_is_too_long(message: str) -> None:
    body = b'{"error":{"type":"invalid_request_error","message":"%b"}}' % message.encode()

    problem = failure(400, {}, body, "anthropic")

    assert type(problem) is errors.ContextTooLong
    assert problem.message == message
    assert not problem.retryable


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (openai_error(), "Words."),
        (b'{"error":"Plain words."}', "Plain words."),
        (b'{"message":"Top level.","type":"x"}', "Top level."),
        (b'[{"error":{"message":"In a list."}}]', "In a list."),
        (b'{"detail":"As FastAPI says it."}', "As FastAPI says it."),
        (b"no JSON at all", "no JSON at all"),
        (b"\xff\xfe", "��"),
        (b"", "the upstream answered 500"),
        (b"[]", "the upstream answered 500"),
        (b"[" * 100_000, "[" * 500),
        (b'{"error":{"message":"' + b"x" * 9_000 + b'"}}', "x" * 500),
    ],
)
def test_the_message_is_found_whatever_the_shape_and_bounded(body: bytes, message: str) -> None:
    assert failure(500, {}, body, "openai").message == message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert failure(429, headers, b"", "openai").retry_after_s == seconds


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, errors.Overloaded),
        ({"type": "rate_limit_error", "message": "x"}, errors.RateLimited),
        ({"code": 502, "message": "Provider returned error"}, errors.UpstreamFailed),
        ({"code": 429, "message": "x"}, errors.RateLimited),
        ({"code": "context_length_exceeded", "message": "x"}, errors.ContextTooLong),
        ({"code": 7, "message": "x"}, errors.UpstreamFailed),
        ("just words", errors.UpstreamFailed),
        (None, errors.UpstreamFailed),
    ],
)
def test_error_events_inside_a_good_answer(
    error: object, expected: type[errors.ProviderError]
) -> None:
    assert type(in_stream(error)) is expected


def test_only_what_a_person_must_mend_is_permanent_and_only_own_faults_are_final() -> None:
    dead = failure(401, {}, b"", "openai")
    busy = failure(503, {}, b"", "openai")
    wrong = failure(400, {}, b"", "openai")

    assert (dead.permanent, dead.retryable) == (True, True)
    assert (busy.permanent, busy.retryable) == (False, True)
    assert (wrong.permanent, wrong.retryable) == (False, False)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_what_a_vendor_says_of_our_credential_is_not_passed_on(status: int) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: sk-pro****cret of org-house"}}'

    problem = failure(status, {}, body, "openai")

    assert problem.message == f"the gateway's credential was refused ({status})"
