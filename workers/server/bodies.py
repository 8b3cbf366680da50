"""What the worker answers with: the shapes, and the order of fields, that OpenAI's clients read.

A field that is UNSET is left out; one that is None is written as null.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class ErrorFacts(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct):
    error: ErrorFacts


class EmbeddingSums(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct, kw_only=True):
    """A vector, or its little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsBody(msgspec.Struct, kw_only=True):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingSums


class TokenSums(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PromptDetails(msgspec.Struct):
    cached_tokens: int


class UsageSoFar(TokenSums):
    prompt_tokens_details: PromptDetails


class Speculation(msgspec.Struct):
    drafted: int
    accepted: int
    steps: int


class EngineMs(msgspec.Struct):
    """Milliseconds on the engine's clock."""

    queue: float
    prefill: float
    decode: float


class Usage(UsageSoFar):
    speculation: Speculation
    engine_ms: EngineMs


class CallUsage(msgspec.Struct):
    """What a call used, told by its caller's id; `usage` is null where it never began."""

    id: str
    over: bool
    usage: UsageSoFar | None


class Counted(msgspec.Struct):
    usage: TokenSums


class Tokenized(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(msgspec.Struct):
    prompt: str


class Token(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class ScoredToken(Token):
    top_logprobs: list[Token]


class ChatLogprobs(msgspec.Struct):
    content: list[ScoredToken]


class TextLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class FunctionCall(msgspec.Struct, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class NumberedCall(msgspec.Struct, kw_only=True):
    """A call in a stream: clients put its pieces together by its number."""

    index: int
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(msgspec.Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[FunctionCall] | UnsetType = UNSET


class Delta(msgspec.Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[NumberedCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class DeltaChoice(msgspec.Struct):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class TextChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str | None


class Completion(msgspec.Struct, kw_only=True):
    """A whole answer, or one event of a stream."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk", "text_completion"]
    created: int
    model: str
    choices: list[ChatChoice | TextChoice] | list[DeltaChoice | TextChoice]
    usage: UsageSoFar | UnsetType = UNSET


class Health(msgspec.Struct, kw_only=True):
    status: Literal["ok"] = "ok"
    model: str
    version: str


class ServedModel(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["tokenhouse"] = "tokenhouse"
    max_model_len: int


class ModelList(msgspec.Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ServedModel]
