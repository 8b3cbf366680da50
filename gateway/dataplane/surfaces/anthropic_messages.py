"""Anthropic Messages as clients speak it: validation, what the request needs, errors.

Every field counts as prompt text unless it is known not to be; which of them travel to whom is
decided in `providers/wires/body_fields.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from gateway.dataplane.surfaces import nested, request_body
from gateway.dataplane.surfaces.anthropic_writer import AnthropicWriter
from gateway.dataplane.surfaces.reading import anthropic
from gateway.dataplane.surfaces.request_body import Name, Names, Probability, TokenLimit
from gateway.errors import GatewayError, InvalidRequest
from providers import pictures
from providers.chat import ChatRequest, ResponseWriter

NAME = "anthropic_messages"
PATH = "/v1/messages"

_NOT_PROMPT = frozenset(
    "model models stream max_tokens temperature top_p top_k stop_sequences metadata provider "
    "session_id max_cost service_tier inference_geo speed".split()
)
# Faster, or elsewhere, is dearer.
_PLAIN = {
    "speed": frozenset({b"null", b'"standard"'}),
    "inference_geo": frozenset({b"null", b'"global"', b'"not_available"'}),
}
_CLIENT_TOOL_TOKENS = 1_500  # of the vendor's own description, at most
_TEXT_BLOCKS = frozenset({"text", "tool_use", "tool_result", "thinking", "redacted_thinking"})
_PASSED_HEADERS = (b"anthropic-version", b"anthropic-beta")
TOO_LONG = "prompt is too long"
# The vendor's names for causes; the SDKs choose their exception by status.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class _Source(msgspec.Struct):
    type: str
    data: str | None = None
    url: str | None = None
    content: "str | list[_Block] | None" = None


class _Citations(msgspec.Struct):
    enabled: bool = False


class _Block(msgspec.Struct):
    type: str
    source: _Source | str | None = None
    text: str | None = None
    id: str | None = None
    name: str | None = None
    tool_use_id: str | None = None
    content: "str | list[_Block] | None" = None
    thinking: str | None = None
    signature: str | None = None
    citations: _Citations | list[msgspec.Raw] | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: Name
    type: str | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: TokenLimit | None = None


class _Format(msgspec.Struct):
    type: str


class _OutputConfig(msgspec.Struct):
    format: _Format | None = None


class _Body(msgspec.Struct):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=10_000)]
    max_tokens: TokenLimit
    model: Name | None = None
    models: Names | None = None
    system: str | list[_Block] | None = None
    stream: bool | None = None
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, msgspec.Meta(max_length=1000)]], msgspec.Meta(max_length=64)]
        | None
    ) = None
    tools: Annotated[list[_Tool], msgspec.Meta(max_length=1024)] | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    mcp_servers: list[msgspec.Raw] | None = None
    container: Any = None
    service_tier: str | None = None
    session_id: str | None = None
    provider: request_body.Provider | None = None


_decoder = msgspec.json.Decoder(_Body)


def parse(body: bytes, headers: Mapping[bytes, bytes]) -> ChatRequest:
    """The canonical request, or InvalidRequest naming the field. Header names are lower case."""
    typed, fields = request_body.decode(body, _decoder)
    nested.check(fields, "messages", "system")
    model, sort = request_body.model_and_sort(typed.model, typed.models)
    contents = _contents(typed)
    if request_body.costs_extra(fields, _PLAIN):
        contents.needs.add("surcharge")
    return ChatRequest(
        surface=NAME,
        dialect="anthropic",
        read=anthropic.read,
        body=body,
        fields=fields,
        model=model,
        stream=bool(typed.stream),
        max_output_tokens=typed.max_tokens,
        n=1,
        text_bytes=request_body.bytes_outside(fields, _NOT_PROMPT) - contents.media_bytes,
        messages=len(typed.messages) + (typed.system is not None),
        tools=len(typed.tools or ()),
        preamble_tokens=contents.preamble_tokens,
        all_text=contents.all_text,
        pictures=tuple(contents.pictures),
        unbounded=contents.unbounded,
        needs=frozenset(contents.needs),
        service_tier=request_body.tier(typed.service_tier),
        session_id=request_body.session(typed.session_id, headers),
        max_cost_pico=request_body.max_cost(fields, headers),
        session_max_pico=request_body.session_max_cost(headers),
        tag=request_body.text(headers, b"x-tokenhouse-tag"),
        explain=request_body.flag(headers, b"x-tokenhouse-explain"),
        thinking_tokens=(typed.thinking and typed.thinking.budget_tokens) or 0,
        routing=request_body.routing(typed.provider, typed.models, sort=sort),
        passed_headers={
            name.decode(): headers[name].decode("latin-1")
            for name in _PASSED_HEADERS
            if name in headers
        },
    )


def _contents(typed: _Body) -> request_body.Contents:
    """What the prompt holds, and what an offer must be able to do."""
    contents = request_body.Contents()
    needs = contents.needs
    for at, message in enumerate(typed.messages):
        if not isinstance(message.content, str):
            _read_blocks(message.content, f"messages[{at}].content", contents)
    if typed.messages[-1].role == "assistant":
        needs.add("prefill")
    if isinstance(typed.system, list):
        _read_blocks(typed.system, "system", contents)
    if typed.tools:
        needs.add("tools")
    kinds = [tool.type or "custom" for tool in typed.tools or ()]
    for kind in kinds:
        if kind.startswith(anthropic.CLIENT_TOOLS):
            needs.add("client_tools")
            contents.preamble_tokens += _CLIENT_TOOL_TOKENS
    server_tools = any(k != "custom" and not k.startswith(anthropic.CLIENT_TOOLS) for k in kinds)
    if server_tools or typed.mcp_servers or typed.container is not None:
        needs.add("server_tools")
        contents.add_unbounded("a tool that the vendor runs")
    if typed.output_config is not None and typed.output_config.format is not None:
        needs.add(typed.output_config.format.type)
    return contents


def _read_blocks(blocks: list[_Block], path: str, contents: request_body.Contents) -> None:
    for at, block in enumerate(blocks):
        if block.type == "text" and block.text is None:
            raise _missing(f"{path}[{at}].text")
        if block.type == "tool_use" and not (block.id and block.name):
            raise _missing(f"{path}[{at}].{'name' if block.id else 'id'}")
        if block.type == "tool_result":
            if not block.tool_use_id:
                raise _missing(f"{path}[{at}].tool_use_id")
            if isinstance(block.content, list):
                _read_blocks(block.content, f"{path}[{at}].content", contents)
        elif block.type == "image":
            _read_image(block, f"{path}[{at}].source", contents)
        elif block.type == "document":
            _read_document(block, f"{path}[{at}]", contents)
        elif block.type == "thinking" and not block.signature:
            contents.needs.add("unsigned_thinking")
        elif block.type not in _TEXT_BLOCKS:
            contents.needs.add("files")
            contents.add_unbounded(f"a block of type {block.type}")


def _read_document(block: _Block, path: str, contents: request_body.Contents) -> None:
    """One of text is text; of others nobody knows how many tokens they are."""
    if isinstance(block.citations, _Citations) and block.citations.enabled:
        contents.needs.add("citations")
    source = block.source
    kind = source.type if isinstance(source, _Source) else ""
    _check_source(source, f"{path}.source", contents)
    if isinstance(source, _Source) and kind == "content":
        if isinstance(source.content, list):
            _read_blocks(source.content, f"{path}.source.content", contents)
    elif kind != "text":
        contents.needs.add("files")
        contents.add_unbounded("a document")


def _check_source(source: _Source | str | None, path: str, contents: request_body.Contents) -> None:
    if isinstance(source, _Source):
        contents.add_address(f"{path}.url", source.url)
        if source.type != "text":
            contents.add_data(f"{path}.data", source.data)


def _read_image(block: _Block, path: str, contents: request_body.Contents) -> None:
    """One at an address, or in a file of the vendor's, has no size before it is fetched."""
    _check_source(block.source, path, contents)
    data = block.source.data if isinstance(block.source, _Source) else None
    if data is None:
        contents.add_picture(pictures.Picture(), "")
    else:
        contents.add_picture(pictures.of_base64(data), data)


def _missing(param: str) -> InvalidRequest:
    return InvalidRequest(f"`{param}` is required.", param=param, code="missing_field")


def _message(error: GatewayError) -> str:
    """Clients of this dialect know a prompt that does not fit by the vendor's words, and then
    shorten it themselves."""
    if error.code != "context_length_exceeded" or TOO_LONG in error.message:
        return error.message
    wanted, room = error.detail.get("wanted_tokens"), error.detail.get("room_tokens")
    figures = f"{wanted} tokens > {room} maximum. " if wanted else ""
    return f"{TOO_LONG}: {figures}{error.message}"


def writer(request: ChatRequest, *, request_id: str, created_s: int) -> ResponseWriter:
    return AnthropicWriter(request, request_id=request_id)


def render_error(error: GatewayError, request_id: str) -> bytes:
    """The body of an error answer in Anthropic's shape; code, param and detail are additions."""
    kind = _TYPES.get(error.status, "api_error")
    if kind == "overloaded_error" and not error.retryable:
        kind = "api_error"  # Claude Code repeats an overload whatever else it is told
    words: dict[str, object] = {
        "type": kind,
        "message": _message(error),
        "code": error.code,
    }
    if error.param:
        words["param"] = error.param
    if error.detail:
        words["metadata"] = error.detail
    return msgspec.json.encode({"type": "error", "error": words, "request_id": request_id})
