"""Which top-level fields of a caller's body travel to which kind of seller: one table. Pure.

What is listed for a kind passes under exactly that name. What callers may never decide is refused
by name at the door, whoever would serve. Everything else stays here and is told: a field that we do
not know may cost what nobody priced, and on a machine of the house may name another tenant's cache,
another caller's request or a file. Names that only fold to a known one (`MAX_TOKENS`, or `ſtream`,
which Go's JSON reads as `stream`) are refused: a server could read them in place of ours.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

import msgspec

from providers.chat import OfferView


class Seller(Enum):
    """Kinds of sellers, by what they may be sent."""

    OPENAI = "OpenAI and Azure"
    COMPATIBLE = "others that speak OpenAI's dialect"
    ANTHROPIC = "Anthropic's dialect"
    POOL = "attached servers"
    IN_HOUSE = "our own engine"


class Rule(Enum):
    PASS = "it travels"
    DROP = "it stays here, and the caller is told"
    REFUSE = "the request is refused, and the field named"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Fields that steer this gateway: acted on here, and never sent on.
OURS: Final = _names(
    "provider models session_id max_cost route transforms usage plugins tokenhouse"
)
# What wires write anew for each seller, whatever the caller wrote.
DECIDED: Final = _names("model stream stream_options max_tokens max_completion_tokens service_tier")
_CHAT: Final = _names(
    "messages n temperature top_p stop seed presence_penalty frequency_penalty logit_bias logprobs "
    "top_logprobs tools tool_choice parallel_tool_calls functions function_call response_format "
    "user metadata store"
)
_OF_OPENAI: Final = _names(
    "modalities audio prediction reasoning_effort verbosity safety_identifier prompt_cache_key "
    "prompt_cache_retention web_search_options"
)
# Knobs of open models, by the names that vLLM, SGLang, TGI, llama.cpp and hosts of them share.
_SAMPLING: Final = _names("top_k min_p repetition_penalty min_tokens stop_token_ids ignore_eos")
_OPEN_MODELS: Final = _SAMPLING | _names(
    "top_a typical_p length_penalty bad_words allowed_token_ids skip_special_tokens "
    "spaces_between_special_tokens include_stop_str_in_output no_stop_trim reasoning_effort "
    "chat_template_kwargs enable_thinking thinking thinking_budget thinking_token_budget "
    "include_reasoning separate_reasoning stream_reasoning structured_outputs guided_json "
    "guided_regex guided_choice guided_grammar json_schema regex ebnf grammar repeat_penalty "
    "repeat_last_n mirostat mirostat_tau mirostat_eta dry_multiplier dry_base dry_allowed_length "
    "dry_penalty_last_n dry_sequence_breakers xtc_probability xtc_threshold dynatemp_range "
    "dynatemp_exponent top_n_sigma continue_final_message add_generation_prompt"
)
_OF_HOSTS: Final = _names(
    "reasoning reasoning_format reasoning_split disable_reasoning clear_thinking tool_stream "
    "do_sample safe_prompt random_seed prompt_mode preserve_thinking search_parameters "
    "enable_search data_sources"
)
_PASSING: Final[Mapping[Seller, frozenset[str]]] = {
    Seller.OPENAI: _CHAT | _OF_OPENAI,
    Seller.COMPATIBLE: _CHAT | _OF_OPENAI | _OPEN_MODELS | _OF_HOSTS,
    Seller.ANTHROPIC: _names(
        "messages system temperature top_p top_k stop_sequences metadata tools tool_choice "
        "thinking output_config output_format context_management cache_control mcp_servers "
        "container inference_geo speed"
    ),
    Seller.POOL: _CHAT | _OPEN_MODELS,
    Seller.IN_HOUSE: _CHAT | _SAMPLING | {"continue_final_message"},
}
# What changes what is asked or what it costs in ways that no limit of ours holds, reads what is not
# the caller's, or runs its code.
REFUSED: Final = _names(
    "best_of use_beam_search echo prompt_logprobs prompt prompts input_ids prompt_token_ids "
    "prompt_embeds input_embeds image_data audio_data video_data multi_modal_data "
    "mm_processor_kwargs media_io_kwargs custom_logit_processor custom_params logits_processors "
    "lora lora_path lora_request adapter_id adapter_source chat_template continue_final_turn "
    "add_special_tokens truncate_prompt_tokens "
    "return_hidden_states session_params n_cmpl"
)
# Switches of chat templates that choose how the model thinks. Any other could be another template.
TEMPLATE_SWITCHES: Final = _names(
    "enable_thinking thinking thinking_mode thinking_budget reasoning_effort preserve_thinking "
    "clear_thinking"
)
NOTHING: Final = frozenset({b"null", b"[]", b"{}", b"false"})


def seller_of(offer: OfferView) -> Seller:
    if offer.wire == "anthropic":
        return Seller.ANTHROPIC
    if offer.in_house:
        return Seller.POOL if offer.pool else Seller.IN_HOUSE
    return Seller.OPENAI if offer.provider in ("openai", "azure") else Seller.COMPATIBLE


def passing(seller: Seller) -> frozenset[str]:
    """What travels to such sellers as the bytes that it is."""
    return _PASSING[seller]


def rule(name: str, seller: Seller) -> Rule:
    """What becomes of a field that is neither ours nor decided by us."""
    if name in REFUSED:
        return Rule.REFUSE
    return Rule.PASS if name in _PASSING[seller] else Rule.DROP


def dropped(fields: Mapping[str, msgspec.Raw], seller: Seller) -> list[str]:
    """Those that stay here although the caller set them."""
    kept = _PASSING[seller]
    return [
        name
        for name, value in fields.items()
        if name not in kept
        and name not in OURS
        and name not in DECIDED
        and bytes(value) not in NOTHING
    ]


def folded(name: str) -> str:
    """The name as the least particular reader of JSON takes it: in one case, compatible letters as
    one (the Kelvin sign is a k, the long s an s)."""
    return unicodedata.normalize("NFKC", name).casefold()


KNOWN: Final = OURS | DECIDED | frozenset().union(*_PASSING.values())
_BY_FOLD: Final[Mapping[str, str]] = {folded(name): name for name in KNOWN | REFUSED}


def meant(name: str) -> str:
    """The known name that this one is another spelling of; empty where there is none."""
    known = _BY_FOLD.get(folded(name), "")
    return "" if known == name else known


def odd(fields: Iterable[str]) -> Iterable[str]:
    """Those that no kind of seller is sent: the usual request has none."""
    return [name for name in fields if name not in KNOWN]
