"""`/v1/embeddings`: each text's mean hidden state after the final norm, at length 1."""

import asyncio
import base64
import struct

from workers.engine.progress import Progress
from workers.engine.sequence import FinishReason
from workers.model.sampler import NonFiniteLogits
from workers.server import errors
from workers.server.bodies import Embedding, EmbeddingsBody, EmbeddingSums
from workers.server.bridge import EngineBridge, Stream
from workers.server.call_builder import CallBuilder
from workers.server.generation import INLINE_BODY_BYTES, submit
from workers.server.http_exchange import ClientGone, Exchange
from workers.server.request_fields import AnyCall
from workers.server.responses import encode
from workers.server.text_request import EmbeddingRequest


class Embedder:
    def __init__(self, bridge: EngineBridge, builder: CallBuilder, model_name: str) -> None:
        self._bridge = bridge
        self._builder = builder
        self._model_name = model_name

    async def answer(self, call: AnyCall, size: int, exchange: Exchange) -> None:
        assert isinstance(call, EmbeddingRequest)
        if size > INLINE_BODY_BYTES:
            requests = await asyncio.to_thread(self._builder.readings, call)
        else:
            requests = self._builder.readings(call)
        stream = submit(self._bridge, requests)
        try:
            async with exchange.watched(stream.disconnect):
                ended = await _until_all_ended(stream)
                answers = [ended[request.request_id] for request in requests]
                body = self._body(answers, in_base64=call.encoding_format == "base64")
                await exchange.respond(encode(body), headers=[])
        finally:
            self._bridge.close(stream)

    def _body(self, answers: list[Progress], *, in_base64: bool) -> EmbeddingsBody:
        vectors = [_vector(answer) for answer in answers]
        tokens = sum(answer.usage.prompt_tokens for answer in answers if answer.usage is not None)
        return EmbeddingsBody(
            model=self._model_name,
            data=[
                Embedding(index=index, embedding=_packed(vector) if in_base64 else vector)
                for index, vector in enumerate(vectors)
            ],
            usage=EmbeddingSums(tokens, tokens),
        )


async def _until_all_ended(stream: Stream) -> dict[str, Progress]:
    ended: dict[str, Progress] = {}
    while progress := await stream.take():
        for item in progress:
            if item.finish_reason is FinishReason.ERROR:
                raise errors.failed(item.failure)
            ended[item.request_id] = item
    if stream.is_disconnected:
        raise ClientGone
    return ended


def _vector(answer: Progress) -> list[float]:
    assert answer.reading is not None
    try:
        return answer.reading.embedding
    except NonFiniteLogits as error:
        raise errors.failed(error) from error


def _packed(vector: list[float]) -> str:
    """Little-endian float32, which is what OpenAI's clients unpack."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
