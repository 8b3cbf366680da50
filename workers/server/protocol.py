"""What clients may send: OpenAI's chat and text completions with the usual extensions.

Wrong types and absurd values are refused here, with the parameter's name; a parameter that would be
silently without effect is refused as unsupported. Unknown fields are ignored, as OpenAI's do.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from workers.server.errors import BadRequest

MAX_CHOICES = 8
MAX_LOGIT_BIAS = 1024
MAX_STOP_LENGTH = 256

Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Meta(gt=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
RepetitionPenalty = Annotated[float, Meta(gt=0.0, le=10.0)]
TopK = Annotated[int, Meta(ge=-1, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
StopText = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=16)]
Salt = Annotated[str, Meta(max_length=256)]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: str


class Sampling(msgspec.Struct, kw_only=True):
    """Fields that chat and text completions share."""

    model: str
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: PositiveShare | None = None
    top_k: TopK | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: Salt | None = None
    priority: Priority | None = None
    ignore_eos: bool | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def token_bias(self, vocab_size: int) -> dict[int, float]:
        bias = self.logit_bias or {}
        if len(bias) > MAX_LOGIT_BIAS:
            raise BadRequest(
                f"logit_bias has {len(bias)} entries; at most {MAX_LOGIT_BIAS} are allowed",
                code="invalid_value",
                param="logit_bias",
            )
        for token in bias:
            if not (token.isdecimal() and int(token[:9]) < vocab_size and len(token) <= 9):
                raise BadRequest(
                    f"logit_bias names {token[:20]!r}, which is no token of this model "
                    f"(0 to {vocab_size - 1})",
                    code="invalid_value",
                    param="logit_bias",
                )
        return {int(token): value for token, value in bias.items()}


class ChatRequest(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    continue_final_message: bool | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def check_supported(self, *, template_has_tools: bool) -> None:
        """Refuse what the model's chat template cannot express."""
        if self.response_format is not None and self.response_format.type != "text":
            raise _unsupported("response_format", "only plain text is produced")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise _unsupported("continue_final_message", "the last message is not the assistant's")
        if template_has_tools:
            return
        if self.tools and self.tool_choice != "none":
            raise _unsupported("tools", "this model's chat template knows no tools")
        if any(message.role == "tool" or message.tool_calls for message in self.messages):
            raise _unsupported("messages", "this model's chat template knows no tool calls")

    def template_messages(self) -> list[dict[str, Any]]:
        rendered: list[dict[str, Any]] = []
        for message in self.messages:
            role = "system" if message.role == "developer" else message.role
            entry: dict[str, Any] = {"role": role, "content": message.text}
            if message.tool_calls:
                entry["tool_calls"] = message.tool_calls
            if message.tool_call_id:
                entry["tool_call_id"] = message.tool_call_id
            rendered.append(entry)
        return rendered


class CompletionRequest(Sampling, kw_only=True):
    prompt: str | list[int]
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None
    best_of: int | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        return None

    def check_supported(self) -> None:
        for name in ("echo", "suffix", "logprobs"):
            if getattr(self, name):
                raise _unsupported(name, "not offered by this endpoint")
        if self.best_of not in (None, self.n or 1):
            raise _unsupported("best_of", "not offered by this endpoint")


def _unsupported(param: str, why: str) -> BadRequest:
    return BadRequest(f"{param}: {why}", code="unsupported_parameter", param=param)


RequestKind = TypeVar("RequestKind", bound=Sampling)


def decode(body: bytes, kind: type[RequestKind]) -> RequestKind:
    """Parse a body; every failure is a `BadRequest` that names the place."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        found = re.search(r"`\$\.?([^`]*)`$", str(error))
        param = re.split(r"[.\[]", found[1])[0] if found else None
        raise BadRequest(str(error), code="invalid_value", param=param or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise BadRequest("The body is nested too deeply", code="invalid_json") from error
