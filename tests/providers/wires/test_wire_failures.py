"""What an upstream's error answer means."""

import msgspec
import pytest

from providers import errors
from providers.wires.error_answers import failure, in_stream

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
        (402, openai_error(), errors.AccountDoubted),
        (403, openai_error(), errors.AccountDoubted),
        (402, openai_error(code=b'"insufficient_quota"'), errors.AuthFailed),
        (403, openai_error(code=b'"account_deactivated"'), errors.AuthFailed),
        (424, openai_error(), errors.UpstreamFailed),
        (498, openai_error(), errors.Overloaded),
        (501, openai_error(), errors.RequestRefused),
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
        "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
        "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9000",
        "`inputs` must have less than 1024 tokens. Given: 9000",
        "Trying to keep the first 9000 tokens when context the overflows.",
        "Prompt length 9000 is greater than max_seq_len 4096",
        "Input is too long for requested model.",
        "The input token count (9000) exceeds the maximum number of tokens allowed (4096).",
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000",
        "Please reduce the length of the messages or completion.",
    ],
)
@pytest.mark.parametrize("status", [400, 422, 500])
def test_servers_words_for_a_prompt_that_is_too_long(message: str, status: int) -> None:
    problem = failure(status, {}, said(message), "openai")

    assert type(problem) is errors.ContextTooLong
    assert problem.message == message
    assert not problem.retryable


def said(message: str, **more: object) -> bytes:
    return msgspec.json.encode({"error": {"message": message, **more}})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
@pytest.mark.parametrize(
    "message",
    [
        "The model `/models/qwen` does not exist.",
        "Invalid model: qwen",
        "qwen/x is not a valid model ID",
        'Invalid model identifier "qwen". Please specify a valid downloaded model.',
        "No models loaded. Please load a model in the developer page.",
        'model "qwen" not found, try pulling it first',
        "This server is pinned to '/srv/weights/smol' and loads no other.",
        "Project `proj_1` does not have access to model `gpt-9`",
        "team not allowed to access model gpt-9",
    ],
)
def test_a_name_that_the_seller_does_not_know_is_our_catalogue_s_fault(
    message: str, status: int
) -> None:
    problem = failure(status, {}, said(message), "openai")

    assert type(problem) is errors.ModelNotFound
    assert problem.retryable
    assert not problem.concerns_all
    # the caller is told no path of the operator's, the log is
    assert problem.message == "the seller does not serve the model that the catalogue names"
    assert str(problem) == message


@pytest.mark.parametrize(
    "message",
    [
        "`temperature` is not allowed for this model",
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "tools.0.input_schema: invalid model output",
        "The tool `model` does not exist",
    ],
)
def test_other_faults_are_not_taken_for_an_unknown_model(message: str) -> None:
    assert type(failure(400, {}, said(message), "openai")) is errors.BadRequest


@pytest.mark.parametrize(
    ("status", "message", "code", "expected"),
    [
        (403, "The request was flagged by our moderation.", None, errors.ContentFiltered),
        (403, "x", "content_policy_violation", errors.ContentFiltered),
        (400, "Content Exists Risk", "invalid_request_error", errors.ContentFiltered),
        (400, "x", "DataInspectionFailed", errors.ContentFiltered),
        (429, "x", "1301", errors.ContentFiltered),
        (
            402,
            "This request requires more credits, or fewer max_tokens. You requested up to 4096 "
            "tokens, but can only afford 1200.",
            None,
            errors.RequestRefused,
        ),
        (429, "Request too large for m in org: Limit 1, Requested 2", None, errors.RequestRefused),
        (413, "Request too large: tokens per minute (TPM)", None, errors.RequestRefused),
        (404, "No endpoints found that support tool use.", None, errors.RequestRefused),
        (501, "This server does not support tools.", "not_supported_error", errors.RequestRefused),
    ],
)
def test_what_one_request_caused_speaks_against_no_offer(
    status: int, message: str, code: str | None, expected: type[errors.ProviderError]
) -> None:
    problem = failure(status, {}, said(message, code=code), "openai")

    assert type(problem) is expected
    assert (problem.counts, problem.permanent) == (False, False)


@pytest.mark.parametrize(
    ("status", "message", "code", "expected"),
    [
        (400, "Your credit balance is too low to access the API.", None, errors.AccountDoubted),
        (400, "API key not valid. Please pass a valid API key.", None, errors.AccountDoubted),
        (402, "Insufficient Balance", None, errors.AccountDoubted),
        (403, "You may not.", "permission_error", errors.AccountDoubted),
        (429, "Insufficient balance", "1113", errors.AuthFailed),
        (429, "Your account has insufficient balance.", None, errors.AccountDoubted),
        (400, "x", "billing_not_active", errors.AuthFailed),
        (403, "x", "unsupported_country_region_territory", errors.AuthFailed),
    ],
)
def test_what_is_about_the_account_is_certain_by_a_code_and_doubted_by_words(
    status: int, message: str, code: str | None, expected: type[errors.ProviderError]
) -> None:
    problem = failure(status, {}, said(message, code=code), "openai")

    assert type(problem) is expected
    assert problem.concerns_all is (expected is errors.AuthFailed)
    assert problem.message == f"the gateway's credential was refused ({status})"


def test_a_prompt_that_is_repeated_in_an_error_never_concerns_others() -> None:
    for words in ("invalid api key", "account suspended", "model x not found", "credit balance is"):
        for status in (400, 402, 403, 404, 429, 500, 503):
            message = f"Your prompt '{words} too low' was refused."
            assert not failure(status, {}, said(message), "openai").concerns_all


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot read /srv/models/qwen/config.json now", "cannot read … now"),
        ("at http://10.0.0.7:8000/v1/chat failed", "at … failed"),
        ("at http://vllm:8000/v1 failed", "at … failed"),
        ("in C:\\weights\\q4.gguf", "in …"),
        (
            "see https://platform.openai.com/docs/errors",
            "see https://platform.openai.com/docs/errors",
        ),
        ("and/or /v1/chat/completions", "and/or /v1/chat/completions"),
        ("messages/0/content is wrong", "messages/0/content is wrong"),
    ],
)
def test_callers_are_told_no_path_or_address_of_the_house(message: str, shown: str) -> None:
    for status in (400, 500, 503):
        assert failure(status, {}, said(message), "openai").message == shown


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":"Model is overloaded","error_type":"overloaded"}', errors.Overloaded),
        (b'{"error":"Input validation error: x","error_type":"validation"}', errors.BadRequest),
    ],
)
def test_a_type_that_stands_beside_the_words_counts(
    body: bytes, expected: type[errors.ProviderError]
) -> None:
    status = 503 if expected is errors.Overloaded else 422
    assert type(failure(status, {}, body, "openai")) is expected


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
        ({"code": "503", "message": "x"}, errors.Overloaded),
        ({"type": "exceed_context_size_error", "message": "x"}, errors.ContextTooLong),
        ({"type": "BadRequestError", "code": 400, "message": "x"}, errors.BadRequest),
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
