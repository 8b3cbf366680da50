"""OpenAI Chat Completions as clients speak it: validation, what the request needs, errors.

Every field counts as prompt text unless it is known not to be; which of them travel to whom is
decided in `providers/wires/body_fields.py`. OpenRouter's routing fields are understood, and not
sent on.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from gateway.dataplane.surfaces import nested, request_body
from gateway.dataplane.surfaces.openai_writer import OpenAIWriter
from gateway.dataplane.surfaces.reading import openai
from gateway.dataplane.surfaces.request_body import Name, Names, Probability, TokenLimit
from gateway.errors import GatewayError, InvalidRequest
from providers import pictures
from providers.chat import ChatRequest, ResponseWriter

NAME = "openai_chat"
PATH = "/v1/chat/completions"

# Fields that no template or vendor puts into the prompt.
_NOT_PROMPT = frozenset(
    "model models stream stream_options max_tokens max_completion_tokens n temperature top_p "
    "top_k min_p stop seed presence_penalty frequency_penalty repetition_penalty logit_bias "
    "logprobs top_logprobs user metadata provider session_id max_cost prompt_cache_key "
    "service_tier store parallel_tool_calls safety_identifier reasoning_effort verbosity usage "
    "route transforms".split()
)
# Searches and documents that a vendor looks up for the caller are charged apiece.
_OFF = frozenset({b"null", b"false"})
_PLAIN = dict.fromkeys(("search_parameters", "enable_search", "data_sources"), _OFF)
_PDF = "data:application/pdf;base64,"
_KNOWN_PARTS = frozenset({"file", "video_url", "audio_url"})
_FUNCTION_TOOLS = frozenset({"function", "custom"})

Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Stop = Annotated[str, msgspec.Meta(max_length=1000)]


class _ImageUrl(msgspec.Struct):
    url: str = ""
    detail: str | None = None


class _File(msgspec.Struct):
    file_data: str | None = None
    file_url: str | None = None


class _InputAudio(msgspec.Struct):
    data: str = ""


class _Part(msgspec.Struct):
    type: str
    image_url: _ImageUrl | str | None = None
    video_url: _ImageUrl | str | None = None
    audio_url: _ImageUrl | str | None = None
    input_audio: _InputAudio | None = None
    uuid: Any = None
    file: _File | None = None
    text: str | None = None
    refusal: str | None = None


class _Called(msgspec.Struct):
    name: str
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    id: str
    type: str = "function"
    function: _Called | None = None


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: _Called | None = None
    audio: Any = None


class _Function(msgspec.Struct):
    name: Name


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None


class _ResponseFormat(msgspec.Struct):
    type: str


class _Reasoning(msgspec.Struct):
    """OpenRouter's."""

    max_tokens: TokenLimit | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=10_000)]
    model: Name | None = None
    models: Names | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    min_p: Probability | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], msgspec.Meta(max_length=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, Annotated[float, msgspec.Meta(ge=-100, le=100)]] | None = None
    tools: Annotated[list[_Tool], msgspec.Meta(max_length=1024)] | None = None
    functions: list[_Function] | None = None
    response_format: _ResponseFormat | None = None
    reasoning: _Reasoning | None = None
    modalities: list[str] | None = None
    web_search_options: Any = None
    service_tier: str | None = None
    session_id: str | None = None
    user: str | None = None
    provider: request_body.Provider | None = None


_decoder = msgspec.json.Decoder(_Body)


def parse(body: bytes, headers: Mapping[bytes, bytes]) -> ChatRequest:
    """The canonical request, or InvalidRequest naming the field. Header names are lower case."""
    typed, fields = request_body.decode(body, _decoder)
    nested.check(fields, "messages")
    model, sort = request_body.model_and_sort(typed.model, typed.models)
    contents = _contents(typed)
    if request_body.costs_extra(fields, _PLAIN):
        contents.needs.add("surcharge")
    tools = len(typed.tools or ()) + len(typed.functions or ())
    return ChatRequest(
        surface=NAME,
        dialect="openai",
        read=openai.read,
        body=body,
        fields=fields,
        model=model,
        stream=bool(typed.stream),
        max_output_tokens=_limit(typed),
        n=typed.n or 1,
        text_bytes=request_body.bytes_outside(fields, _NOT_PROMPT) - contents.media_bytes,
        messages=len(typed.messages),
        tools=tools,
        all_text=contents.all_text,
        pictures=tuple(contents.pictures),
        sound_tokens=contents.sound_tokens,
        unbounded=contents.unbounded,
        needs=frozenset(contents.needs),
        service_tier=request_body.tier(typed.service_tier),
        session_id=request_body.session(typed.session_id, headers),
        max_cost_pico=request_body.max_cost(fields, headers),
        session_max_pico=request_body.session_max_cost(headers),
        tag=request_body.text(headers, b"x-tokenhouse-tag"),
        explain=request_body.flag(headers, b"x-tokenhouse-explain"),
        include_usage=typed.stream_options is None
        or typed.stream_options.include_usage is not False,
        thinking_tokens=(typed.reasoning and typed.reasoning.max_tokens) or 0,
        routing=request_body.routing(typed.provider, typed.models, sort=sort),
    )


def _limit(typed: _Body) -> int | None:
    limits = [n for n in (typed.max_tokens, typed.max_completion_tokens) if n is not None]
    return min(limits) if limits else None


def _contents(typed: _Body) -> request_body.Contents:
    """What the prompt holds, and what an offer must be able to do."""
    contents = request_body.Contents()
    needs = contents.needs
    for at, message in enumerate(typed.messages):
        _read_message(at, message, contents)
    if typed.tools or typed.functions:
        needs.add("tools")
    if typed.functions:
        needs.add("functions")
    stops = [typed.stop] if isinstance(typed.stop, str) else typed.stop or ()
    if any(stop.isspace() for stop in stops):
        needs.add("whitespace_stop")
    if typed.temperature not in (None, 1) and typed.top_p not in (None, 1):
        needs.add("temperature_and_top_p")
    if _is_empty(typed.messages[-1]):
        needs.add("empty_last_message")
    server_tools = any(tool.type not in _FUNCTION_TOOLS for tool in typed.tools or ())
    if server_tools or typed.web_search_options is not None:
        needs.add("server_tools")
        contents.add_unbounded("a tool that the vendor runs")
    if typed.response_format is not None and typed.response_format.type != "text":
        needs.add(typed.response_format.type)
    if typed.n is not None and typed.n > 1:
        needs.add("n")
    if typed.logprobs:
        needs.add("logprobs")
    if typed.modalities is not None and "audio" in typed.modalities:
        needs.add("audio_output")
    return contents


def _is_empty(message: _Message) -> bool:
    """Whether it says nothing at all."""
    content = message.content
    if message.role == "tool" or message.tool_calls or message.audio is not None:
        return False
    if isinstance(content, list):
        return all(p.type == "text" and not (p.text or "").strip() for p in content)
    return not (content or "").strip()


def _read_message(at: int, message: _Message, contents: request_body.Contents) -> None:
    if message.role == "tool" and not message.tool_call_id:
        raise _missing(f"messages[{at}].tool_call_id")
    if message.role == "function" or message.function_call is not None:
        contents.needs.add("functions")
    if message.audio is not None:
        contents.add_unbounded("an earlier answer's sound")
    content = message.content
    if content is None and message.role != "assistant":
        raise _missing(f"messages[{at}].content")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _read_part(part, f"messages[{at}].content[{number}]", contents)


def _read_part(part: _Part, path: str, contents: request_body.Contents) -> None:
    if part.uuid is not None:
        raise InvalidRequest(
            f"`{path}.uuid` names a picture in a cache that callers share; it is not sent on.",
            param=f"{path}.uuid",
            code="field_not_allowed",
        )
    if part.type == "text":
        if part.text is None:
            raise _missing(f"{path}.text")
    elif part.type == "image_url":
        image = part.image_url
        if image is None:
            raise _missing(f"{path}.image_url")
        url = _address(image)
        detail = "" if isinstance(image, str) else image.detail or ""
        contents.add_address(f"{path}.image_url", url)
        contents.add_picture(pictures.of_url(url, detail=detail), url)
    elif part.type == "input_audio":
        if part.input_audio is None:
            raise _missing(f"{path}.input_audio")
        contents.add_data(f"{path}.input_audio", part.input_audio.data)
        contents.add_sound(part.input_audio.data)
    elif part.type != "refusal":
        _read_other(part, path, contents)


def _read_other(part: _Part, path: str, contents: request_body.Contents) -> None:
    """Files, videos, and what only its seller knows."""
    if part.type not in _KNOWN_PARTS:
        contents.needs.add("odd_parts")
    for name, media in (("video_url", part.video_url), ("audio_url", part.audio_url)):
        if media is not None:
            contents.add_address(f"{path}.{name}", _address(media))
    file = part.file or _File()
    contents.add_data(f"{path}.file.file_data", file.file_data)
    contents.add_address(f"{path}.file.file_url", file.file_url)
    inline = (file.file_data or "").startswith(_PDF)
    contents.needs.add("documents" if inline else "files")
    contents.add_unbounded(f"a part of type {part.type}")


def _address(media: _ImageUrl | str) -> str:
    return media if isinstance(media, str) else media.url


def _missing(param: str) -> InvalidRequest:
    return InvalidRequest(f"`{param}` is required.", param=param, code="missing_field")


def writer(request: ChatRequest, *, request_id: str, created_s: int) -> ResponseWriter:
    return OpenAIWriter(request, request_id=request_id, created_s=created_s)


def render_error(error: GatewayError, request_id: str) -> bytes:
    """The body of an error answer in OpenAI's shape."""
    words: dict[str, object] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
        "request_id": request_id,
    }
    if error.detail:
        words["metadata"] = error.detail
    return msgspec.json.encode({"error": words})
