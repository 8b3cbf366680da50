"""What clients may send, in common: field types with their ranges, sampling, and decoding.

Wrong types and absurd values are refused here, with the parameter's name; a parameter that would be
silently without effect is refused as unsupported. Unknown fields are ignored, as OpenAI's do.
"""

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from workers.server.errors import BadRequest
from workers.server.queue_priorities import rank

MAX_CHOICES = 8
MAX_LOGIT_BIAS = 1024
MAX_STOP_LENGTH = 256
MAX_STOP_TOKENS = 64

Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Meta(gt=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
RepetitionPenalty = Annotated[float, Meta(gt=0.0, le=10.0)]
TopK = Annotated[int, Meta(ge=-1, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Meta(ge=0, le=1_000_000)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
StopText = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=16)]
StopTokens = Annotated[list[int], Meta(max_length=MAX_STOP_TOKENS)]
Salt = Annotated[str, Meta(max_length=256)]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]


class AnyCall(msgspec.Struct, kw_only=True):
    """A body that may name the model it is meant for."""

    model: str | None = None


class Queued(AnyCall, kw_only=True):
    """A call that the engine works on: whose cache it shares, and its place in the queue."""

    cache_salt: Salt | None = None
    priority: Priority | str | None = None
    service_tier: str | None = None

    @property
    def rank(self) -> int:
        """Lower goes first; `priority` says it more exactly than `service_tier` can."""
        tier = rank(self.service_tier or "default", param="service_tier")
        if isinstance(self.priority, str):
            return rank(self.priority, param="priority")
        return tier if self.priority is None else self.priority


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None  # as vLLM calls it: counts with every chunk


class JsonSchema(msgspec.Struct):
    """A named schema, kept as text: the order of its properties is the order of the answer's."""

    schema: msgspec.Raw
    name: str = ""
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def schema(self) -> str | None:
        """The JSON schema that the answer must meet, as text; None for free text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.json_schema is None:
            raise BadRequest(
                "response_format needs json_schema: {name, schema}",
                code="invalid_value",
                param="response_format",
            )
        return bytes(self.json_schema.schema).decode()


class Sampling(Queued, kw_only=True):
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
    stop_token_ids: StopTokens | None = None
    min_tokens: CountOrNone | None = None
    response_format: ResponseFormat | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def counts_on(self) -> bool:
        return self.includes_usage and bool(
            self.stream_options and self.stream_options.continuous_usage_stats
        )

    @property
    def schema(self) -> str | None:
        return self.response_format.schema if self.response_format is not None else None

    def end_tokens(self, vocab_size: int) -> tuple[int, ...]:
        tokens = tuple(self.stop_token_ids or ())
        for token in tokens:
            check_token("stop_token_ids", str(token), vocab_size)
        return tokens

    def fewest_tokens(self, max_tokens: int) -> int:
        """`min_tokens`, which may neither pass the limit nor hold a finished JSON text open."""
        fewest = self.min_tokens or 0
        if fewest > max_tokens:
            raise BadRequest(
                f"min_tokens is {fewest}, but at most {max_tokens} tokens can come",
                code="invalid_value",
                param="min_tokens",
            )
        if fewest and self.schema is not None:
            raise unsupported("min_tokens", "an answer with a schema ends when it is complete")
        return fewest

    def token_bias(self, vocab_size: int) -> dict[int, float]:
        bias = self.logit_bias or {}
        if len(bias) > MAX_LOGIT_BIAS:
            raise BadRequest(
                f"logit_bias has {len(bias)} entries; at most {MAX_LOGIT_BIAS} are allowed",
                code="invalid_value",
                param="logit_bias",
            )
        return {
            check_token("logit_bias", token, vocab_size): value for token, value in bias.items()
        }


def check_token(param: str, token: str, vocab_size: int) -> int:
    if token.isascii() and token.isdecimal() and len(token) <= 9 and int(token) < vocab_size:
        return int(token)
    raise BadRequest(
        f"{param} names {token[:20]!r}, which is no token of this model (0 to {vocab_size - 1})",
        code="invalid_value",
        param=param,
    )


def unsupported(param: str, why: str) -> BadRequest:
    return BadRequest(f"{param}: {why}", code="unsupported_parameter", param=param)


RequestKind = TypeVar("RequestKind", bound=AnyCall)


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
