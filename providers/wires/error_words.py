"""What vendors and servers call their errors: codes are theirs alone, words may repeat a caller's
prompt, so that nothing that concerns other callers rests on words. All lower case.
"""

import re

# What an error event inside a 200 stream calls itself, where it gives no status.
STATUS_OF_CODE = {
    "overloaded_error": 529,
    "overloaded": 529,
    "unavailable_error": 503,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "authentication_error": 401,
    "permission_error": 403,
    "billing_error": 402,
    "not_found_error": 404,
    "notfounderror": 404,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "validation": 422,
    "request_too_large": 413,
    "timeout_error": 504,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "content_filter": 400,
    "not_supported_error": 501,
}

CONTEXT_CODES = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "exceed_context_size_error",
        "model_max_prompt_tokens_exceeded",
        "prompt_too_long",
    }
)
CONTEXT_WORDS = re.compile(
    r"context[ _]length|context[ _]window|context[ _]size|context[ _]limit|maximum context|"
    r"context the overflows|(prompt|input) is too long|too many tokens|"
    r"maximum (model|sequence) length|max(imum)?_(model|seq|position)\w*|"
    r"(longer than|exceeds?) the (model's |maximum |max )*(allowed |context |model |input )*length|"
    r"tokens? (count )?.{0,20}exceeds the maximum number of tokens|"
    r"`inputs` (tokens \+|must have less than)|(available )?cache size.*prompt length|"
    r"prompt length.*(cache size|greater than)|reduce the length of the (messages|prompt|input)"
)

FILTER_CODES = frozenset(
    {
        "content_filter",
        "content_filtered",
        "content_policy_violation",
        "data_inspection_failed",
        "datainspectionfailed",
        "inputtextsensitivecontentdetected",
        "invalid_prompt",
        "moderation",
        "moderation_blocked",
        "responsibleaipolicyviolation",
        "1301",
    }
)
FILTER_WORDS = re.compile(
    r"content (management|policy|filter)|content exists risk|usage polic(y|ies)|moderation|"
    r"flagged|inappropriate content|violat\w+ .{0,40}polic|safety (system|filter|polic)"
)

MODEL_CODES = frozenset(
    {"model_not_found", "invalid_model", "model_not_available", "key_model_access_denied"}
)
_MODEL = r"model( identifier| id| name)?"
MODEL_WORDS = re.compile(
    rf"(invalid|unknown|unsupported|no such) {_MODEL}\b(?! (output|response))|not a valid {_MODEL}|"
    r"pinned to|"
    rf"\bmodel:? [^ ]{{1,200}} (does not exist|not found|is not (found|available|loaded|supported|"
    r"served)|was not found)|model (does not exist|not found|not exist)|no models? (is |are )?"
    r"(currently )?loaded|(access|permission) (to|for|use)[^.]{0,40} model|"
    r"allowed to (access|use)[^.]{0,40} model"
)

# About the account whatever is asked.
ACCOUNT_CODES = frozenset(
    {
        "access_terminated",
        "account_deactivated",
        "account_suspended",
        "api_key_invalid",
        "authentication_error",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_quota",
        "invalid_api_key",
        "key_disabled",
        "organization_restricted",
        "unsupported_country_region_territory",
        "1113",
    }
)
ACCOUNT_WORDS = re.compile(
    r"credit balance is too low|insufficient (account )?(balance|credits?|funds|quota)|"
    r"api key (is )?(not valid|invalid|expired|disabled)|(invalid|incorrect|expired) api key|"
    r"account[^.]{0,30}(suspended|deactivated|disabled|overdue)|payment required|arrears"
)

# This request is larger than our account may send at once.
SIZE_WORDS = re.compile(
    r"fewer max_tokens|can only afford|request(ed)? too large|tokens per minute|"
    r"per[- ]request limit"
)
# This request asks for what this seller cannot do, though others may.
UNABLE_WORDS = re.compile(r"no (endpoints|allowed providers|providers?)\b.{0,20}(found|available)")

# A path or an address inside the house: both look like this in servers' errors.
INTERNAL = re.compile(
    r"(?<![\w:/.])/(?!v\d|messages|tools|chat|docs)[\w.@+-]+(?:/[\w.@+-]+)+/?|"
    r"\b[A-Za-z]:\\[^\s'\"`]+|file://[^\s'\"`]+|"
    r"https?://(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]|[\w-]+)(?::\d+)?(?:/[^\s'\"`]*)?(?![\w.])"
)
