"""Chat and text completions over the engine's bridge, whole or as server-sent events.

Every call ends in `bridge.close`, so a client that leaves, or reads too slowly, frees its blocks.
"""

import asyncio
import secrets
import time

from workers.engine.progress import Progress
from workers.engine.sequence import FinishReason, GenerationRequest
from workers.server import errors
from workers.server.bridge import Busy, EngineBridge, Stopped, Stream
from workers.server.call_builder import CallBuilder
from workers.server.chat_request import ChatRequest
from workers.server.http_exchange import ClientGone, Exchange
from workers.server.recent_calls import Call, RecentCalls
from workers.server.request_fields import AnyCall, Sampling
from workers.server.responses import DONE, Answers, ResponseWriter, event
from workers.server.text_request import CompletionRequest

RETRY_AFTER_S = 2
# Tokenising a text of this size takes about a millisecond; a longer one goes to a thread.
INLINE_BODY_BYTES = 16_384


def submit(bridge: EngineBridge, requests: list[GenerationRequest]) -> Stream:
    """Queue a call's requests, or say in HTTP's terms why not."""
    try:
        return bridge.submit(requests)
    except Busy:
        raise errors.Overloaded(
            f"{bridge.in_flight} requests are in flight", retry_after_s=RETRY_AFTER_S
        ) from None
    except Stopped:
        raise errors.EngineFailed("The engine has stopped", code="engine_stopped") from None


class Generator:
    def __init__(
        self, bridge: EngineBridge, builder: CallBuilder, model_name: str, recent: RecentCalls
    ) -> None:
        self._recent = recent
        self._bridge = bridge
        self._builder = builder
        self._model_name = model_name

    async def answer(self, call: AnyCall, size: int, exchange: Exchange) -> None:
        """Answer a call whose body had `size` bytes, and remember what it used."""
        assert isinstance(call, ChatRequest | CompletionRequest)
        remembered = self._recent.open(exchange.call_id)
        try:
            await self._answer(call, size, exchange, remembered)
        finally:
            remembered.end()

    async def _answer(
        self, call: ChatRequest | CompletionRequest, size: int, exchange: Exchange, remembered: Call
    ) -> None:
        compiles = call.schema is not None or isinstance(call, ChatRequest) and bool(call.tools)
        if size > INLINE_BODY_BYTES or compiles:
            requests = await asyncio.to_thread(self._builder.requests, call)
        else:
            requests = self._builder.requests(call)
        writer = self._writer(call, requests)
        remembered.answers = writer.answers
        stream = submit(self._bridge, requests)
        try:
            async with exchange.watched(stream.disconnect):
                if call.stream:
                    await _stream(stream, writer, exchange, wants_usage=call.includes_usage)
                else:
                    await _collect(stream, writer, exchange)
        finally:
            self._bridge.close(stream)

    def _writer(self, call: Sampling, requests: list[GenerationRequest]) -> ResponseWriter:
        echo = isinstance(call, CompletionRequest) and bool(call.echo)
        answers = Answers(requests, choices_per_prompt=call.n or 1)
        if isinstance(call, ChatRequest):
            for choice in answers.by_id.values():
                choice.parser = self._builder.parser(call)
        return ResponseWriter(
            kind="chat" if isinstance(call, ChatRequest) else "text",
            response_id=f"chatcmpl-{secrets.token_hex(12)}",
            model=self._model_name,
            created_s=int(time.time()),
            answers=answers,
            tokenizer=self._builder.engine.tokenizer,
            echo=echo,
            counts_on=call.counts_on,
        )


async def _stream(
    stream: Stream, writer: ResponseWriter, exchange: Exchange, *, wants_usage: bool
) -> None:
    await exchange.start_stream()
    while progress := await stream.take():
        chunks: list[bytes] = []
        for item in progress:
            if item.finish_reason is FinishReason.ERROR:
                failed = errors.failed(item.failure).body()
                await exchange.send_part(event(failed), is_last=True)
                return
            chunks.append(writer.chunk(item))
        await exchange.send_part(b"".join(chunks))
    if stream.is_disconnected:
        raise ClientGone
    end = (writer.usage_chunk() if wants_usage else b"") + DONE
    await exchange.send_part(end, is_last=True)


async def _collect(stream: Stream, writer: ResponseWriter, exchange: Exchange) -> None:
    whole: dict[str, Progress] = {}
    while progress := await stream.take():
        for item in progress:
            earlier = whole.get(item.request_id)
            whole[item.request_id] = item if earlier is None else earlier.followed_by(item)
    if stream.is_disconnected:
        raise ClientGone
    for answer in whole.values():
        if answer.finish_reason is FinishReason.ERROR:
            raise errors.failed(answer.failure)
    await exchange.respond(writer.whole(list(whole.values())), headers=[])
