"""The surfaces by path: what clients may speak to us."""

from collections.abc import Mapping
from typing import Protocol

from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from gateway.errors import GatewayError
from providers.chat import ChatRequest, ResponseWriter


class Surface(Protocol):
    """A module that speaks one client dialect."""

    NAME: str
    PATH: str

    def parse(self, body: bytes, headers: Mapping[bytes, bytes]) -> ChatRequest: ...

    def writer(
        self, request: ChatRequest, *, request_id: str, created_s: int
    ) -> ResponseWriter: ...

    def render_error(self, error: GatewayError, request_id: str) -> bytes: ...


def spoken_by(headers: Mapping[bytes, bytes], path: str) -> Surface:
    """The dialect of a caller at a path that is no surface's own."""
    if path.startswith(anthropic_messages.PATH) or b"anthropic-version" in headers:
        return anthropic_messages
    if b"x-api-key" in headers and b"authorization" not in headers:
        return anthropic_messages
    return openai_chat


SURFACES: dict[str, Surface] = {
    openai_chat.PATH: openai_chat,
    anthropic_messages.PATH: anthropic_messages,
}
