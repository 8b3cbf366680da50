"""The body of a chat completion."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from workers.server.protocol import Count, Sampling, TopLogprobs, unsupported


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


class ChatRequest(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    continue_final_message: bool | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def check_supported(self, *, template_has_tools: bool) -> None:
        """Refuse what the model's chat template cannot express."""
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise unsupported("continue_final_message", "the last message is not the assistant's")
        if template_has_tools:
            return
        if self.tools and self.tool_choice != "none":
            raise unsupported("tools", "this model's chat template knows no tools")
        if any(message.role == "tool" or message.tool_calls for message in self.messages):
            raise unsupported("messages", "this model's chat template knows no tool calls")


def template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates read them."""
    rendered: list[dict[str, Any]] = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        entry: dict[str, Any] = {"role": role, "content": message.text}
        if message.tool_calls:
            entry["tool_calls"] = message.tool_calls
        if message.tool_call_id:
            entry["tool_call_id"] = message.tool_call_id
        rendered.append(entry)
    return rendered
