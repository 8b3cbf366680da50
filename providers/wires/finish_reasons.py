"""Why an answer ended, in OpenAI's five words, whatever the server calls it; and back again.

Servers say either dialect's words in either dialect, and some of their own. What breaks an answer
off is no finish. A word that nobody knows is handed on as it came.
"""

from typing import Any, Final

STOP: Final = "stop"
LENGTH: Final = "length"
TOOL_CALLS: Final = "tool_calls"
FILTER: Final = "content_filter"

OPENAI_WORDS: Final = frozenset({STOP, LENGTH, TOOL_CALLS, FILTER, "function_call"})
# What stands for each in the other dialect, and all that this dialect says.
TO_ANTHROPIC: Final = {
    STOP: "end_turn",
    LENGTH: "max_tokens",
    TOOL_CALLS: "tool_use",
    FILTER: "refusal",
}
ANTHROPIC_WORDS: Final = frozenset(
    {*TO_ANTHROPIC.values(), "stop_sequence", "pause_turn", "model_context_window_exceeded"}
)
BROKEN: Final = frozenset(
    {
        "abort",
        "aborted",
        "cancelled",
        "error",
        "failed",
        "insufficient_system_resource",
        "modelunloaded",
        "network_error",
        "unload",
        "userstopped",
    }
)
_WORDS: Final = {
    **{word: word for word in OPENAI_WORDS},
    "function_call": TOOL_CALLS,
    "end_turn": STOP,
    "stop_sequence": STOP,
    "pause_turn": STOP,
    "end": STOP,
    "eos": STOP,
    "eos_token": STOP,
    "eosfound": STOP,
    "stopstringfound": STOP,
    "max_tokens": LENGTH,
    "max_output_tokens": LENGTH,
    "max_new_tokens": LENGTH,
    "model_length": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "contextlengthreached": LENGTH,
    "maxpredictedtokensreached": LENGTH,
    "tool_use": TOOL_CALLS,
    "tool_call": TOOL_CALLS,
    "toolcalls": TOOL_CALLS,
    "refusal": FILTER,
    "safety": FILTER,
    "sensitive": FILTER,
}


def anthropic_word(reason: Any, finish_reason: str) -> Any:
    """A server's stop reason in Anthropic's words, `finish_reason` being what it means: one of the
    other dialect is replaced, and a call of a tool is never the end of a turn."""
    if not finish_reason or reason == "tool_use":
        return reason
    if reason in ANTHROPIC_WORDS and finish_reason != TOOL_CALLS:
        return reason
    return TO_ANTHROPIC[finish_reason]


def canonical(word: Any) -> str:
    """Empty where this is no finish yet."""
    if isinstance(word, dict):
        word = word.get("type")
    if not isinstance(word, str):
        return ""
    known = _WORDS.get(word)
    if known is not None:
        return known
    folded = word.lower()
    return _WORDS.get(folded) or (folded if folded in BROKEN else word)
