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


SURFACES: dict[str, Surface] = {
    openai_chat.PATH: openai_chat,
    anthropic_messages.PATH: anthropic_messages,
}
