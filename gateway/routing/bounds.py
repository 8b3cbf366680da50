"""How many tokens a request can cost at most, and how many it probably will. Pure.

The input bound rests on one fact: a token of text is at least one byte of it. To the JSON
bytes of the prompt it adds what chat templates and tool preambles may add themselves, and what
its pictures and sounds can be by their size and the model's rule. Files and what a vendor looks
up are bounded by nothing but the model's context. The output bound is what we send upstream as
the limit, so it holds because it is enforced.
"""

from providers.chat import ChatRequest, OfferView
from providers.wires import media_rules

REQUEST_OVERHEAD_TOKENS = 64  # template prologue, default system prompt
MESSAGE_OVERHEAD_TOKENS = 16  # role and turn markers
TOOLS_OVERHEAD_TOKENS = 600  # the preamble that vendors put before tool definitions
TOOL_OVERHEAD_TOKENS = 64
BYTES_PER_TOKEN_EXPECTED = 4
# Only a prompt that is too long even at this many bytes per token is refused by the router.
BYTES_PER_TOKEN_MOST = 6
OUTPUT_TOKENS_EXPECTED = 256
# Vendors refuse a limit above the model's; of one whose limit nobody published this is asked for.
OUTPUT_TOKENS_UNKNOWN = 4_096
# What lowers a limit, as callers are told.
TENANT, MODEL, CONTEXT, UNKNOWN = "tenant", "model", "context", "unknown"


def text_bound(request: ChatRequest) -> int:
    """The most input tokens that the text of this request can be, whatever the tokenizer."""
    tokens = (
        REQUEST_OVERHEAD_TOKENS + request.text_bytes + MESSAGE_OVERHEAD_TOKENS * request.messages
    )
    if request.tools:
        tokens += TOOLS_OVERHEAD_TOKENS + TOOL_OVERHEAD_TOKENS * request.tools
        tokens += request.preamble_tokens
    return tokens


def prompt_bound(request: ChatRequest, *, model: str) -> int | None:
    """The most input tokens that the prompt can be to this model; None where nothing says."""
    if request.unbounded:
        return None
    bound = text_bound(request) + request.sound_tokens
    for picture in request.pictures:
        tokens = media_rules.picture_bound(picture, model=model)
        if tokens is None:
            return None
        bound += tokens
    return bound


def input_bound(request: ChatRequest, offer: OfferView) -> int:
    """The most input tokens that this offer can bill for this request; 0 where neither the prompt
    nor the context says."""
    bound = prompt_bound(request, model=offer.model)
    if bound is None:
        return offer.context_length
    return min(bound, offer.context_length) if offer.context_length else bound


def input_expected(request: ChatRequest) -> int:
    """The input tokens that a request of this size usually has; ranks, never billed as a bound."""
    pictures = sum(media_rules.picture_expected(picture) for picture in request.pictures)
    return max(1, request.text_bytes // BYTES_PER_TOKEN_EXPECTED) + pictures


def input_least(request: ChatRequest) -> int:
    """So few tokens that hardly any text of this size has fewer."""
    return request.text_bytes // BYTES_PER_TOKEN_MOST


def output_limit(request: ChatRequest, offer: OfferView, *, cap: int) -> tuple[int, str]:
    """The limit for one choice that goes upstream, and what lowered it, if that is to be told.

    `cap` is the tenant's own; 0 means none. A limit that the caller named is lowered to the
    model's and the tenant's, and left for the upstream to refuse where prompt and output do
    not fit together. One that we inject is the model's, and leaves room for the prompt.
    """
    context, named = offer.context_length, request.max_output_tokens
    limits = [(cap, TENANT), (offer.max_output_tokens, MODEL), (context, CONTEXT)]
    least = min((limit for limit in limits if limit[0]), default=None)
    if named is not None:
        return (named, "") if least is None or named <= least[0] else least
    if least is None:
        return OUTPUT_TOKENS_UNKNOWN, UNKNOWN
    tokens, by = least
    if not offer.max_output_tokens and not offer.in_house and tokens > OUTPUT_TOKENS_UNKNOWN:
        tokens, by = OUTPUT_TOKENS_UNKNOWN, UNKNOWN
    if context:
        bound = prompt_bound(request, model=offer.model)
        room = 0 if bound is None else context - bound
        room = max(room, (context - _likely(request)) // 2, 1)
        if room <= tokens:
            return room, ""
    return tokens, "" if by in (MODEL, CONTEXT) else by


def max_output_tokens(request: ChatRequest, offer: OfferView, *, cap: int) -> int:
    return output_limit(request, offer, cap=cap)[0]


def _likely(request: ChatRequest) -> int:
    return input_expected(request) + MESSAGE_OVERHEAD_TOKENS * request.messages


def output_bound(request: ChatRequest, offer: OfferView, *, cap: int) -> int:
    """The most output tokens that this request can have here, over all its choices."""
    return request.n * max_output_tokens(request, offer, cap=cap)


def output_expected(output_bound_tokens: int, n: int) -> int:
    return min(output_bound_tokens, n * OUTPUT_TOKENS_EXPECTED)
