"""Engine progress → OpenAI's response bodies and stream chunks."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from workers.engine import Progress
from workers.metrics import RequestUsage
from workers.sampler import TokenLogprobs
from workers.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"

Kind = Literal["chat", "text"]


def encode(body: object) -> bytes:
    return msgspec.json.encode(body)


def event(body: object) -> bytes:
    return b"data: " + encode(body) + b"\n\n"


def usage_body(usages: list[RequestUsage]) -> dict[str, Any]:
    """One usage block for all choices: the prompt counts once, outputs add up."""
    # Later choices share the blocks of the first, which computed what nobody had.
    first = min(usages, key=lambda usage: usage.cached_tokens)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": first.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": first.cached_tokens},
        "speculation": {
            "drafted": sum(usage.drafted for usage in usages),
            "accepted": sum(usage.accepted for usage in usages),
            "steps": sum(usage.steps for usage in usages),
        },
        "engine_ms": {
            "queue": round(first.queue_ms, 3),
            "prefill": round(first.prefill_ms, 3),
            "decode": round(max(usage.decode_ms for usage in usages), 3),
        },
    }


@dataclass(slots=True)
class ResponseWriter:
    """Builds the bodies of one call, which has `len(indices)` choices."""

    kind: Kind
    response_id: str
    model: str
    created_s: int
    indices: dict[str, int]
    tokenizer: Tokenizer

    def chunk(self, progress: Progress, *, is_first: bool) -> bytes:
        choice: dict[str, Any] = {"index": self.indices[progress.request_id]}
        if self.kind == "chat":
            delta: dict[str, Any] = {"role": "assistant"} if is_first else {}
            if progress.text or is_first:
                delta["content"] = progress.text
            choice["delta"] = delta
        else:
            choice["text"] = progress.text
        choice["logprobs"] = self._logprobs(progress.logprobs)
        choice["finish_reason"] = progress.finish_reason
        return event({**self._head(is_chunk=True), "choices": [choice]})

    def usage_chunk(self, usages: list[RequestUsage]) -> bytes:
        return event({**self._head(is_chunk=True), "choices": [], "usage": usage_body(usages)})

    def whole(self, answers: list[Progress], usages: list[RequestUsage]) -> bytes:
        choices = [self._whole_choice(answer) for answer in answers]
        choices.sort(key=lambda choice: int(choice["index"]))
        body = {**self._head(is_chunk=False), "choices": choices, "usage": usage_body(usages)}
        return encode(body)

    def _head(self, *, is_chunk: bool) -> dict[str, Any]:
        if self.kind == "chat":
            name = "chat.completion.chunk" if is_chunk else "chat.completion"
        else:
            name = "text_completion"
        return {
            "id": self.response_id,
            "object": name,
            "created": self.created_s,
            "model": self.model,
        }

    def _whole_choice(self, answer: Progress) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": self.indices[answer.request_id]}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": answer.text, "refusal": None}
        else:
            choice["text"] = answer.text
        choice["logprobs"] = self._logprobs(answer.logprobs)
        choice["finish_reason"] = answer.finish_reason
        return choice

    def _logprobs(self, logprobs: list[TokenLogprobs]) -> dict[str, Any] | None:
        if not logprobs:
            return None
        return {
            "content": [
                {
                    **self._token(entry.token, entry.logprob),
                    "top_logprobs": [self._token(token, value) for token, value in entry.top],
                }
                for entry in logprobs
            ]
        }

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
