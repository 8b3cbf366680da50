"""Counting without computing: `/tokenize` and `/detokenize` in vLLM's shapes, and `/v1/counts`.

The last says what a chat call and the answer to it are in tokens, whoever gave that answer.
"""

import asyncio

from workers.server.bodies import Counted, Detokenized, Tokenized, TokenSums
from workers.server.call_builder import CallBuilder
from workers.server.chat_request import ChatRequest, Message
from workers.server.errors import BadRequest
from workers.server.generation import INLINE_BODY_BYTES
from workers.server.http_exchange import Exchange
from workers.server.request_fields import AnyCall, check_token
from workers.server.responses import encode


class TokenizeRequest(AnyCall, kw_only=True):
    """Either `prompt` or `messages`."""

    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(AnyCall, kw_only=True):
    tokens: list[int]


class CountRequest(ChatRequest, kw_only=True):
    """A chat call as it would be answered here, and the text that answered it."""

    answer: str = ""


class TokenCounter:
    def __init__(self, builder: CallBuilder) -> None:
        self._builder = builder

    async def tokenize(self, call: AnyCall, size: int, exchange: Exchange) -> None:
        assert isinstance(call, TokenizeRequest)
        if size > INLINE_BODY_BYTES:
            body = await asyncio.to_thread(self._tokenized, call)
        else:
            body = self._tokenized(call)
        await exchange.respond(encode(body), headers=[])

    def _tokenized(self, call: TokenizeRequest) -> Tokenized:
        builder = self._builder
        if call.prompt is not None and call.messages is None:
            tokens = builder.text_tokens(call.prompt, special=call.add_special_tokens)
        elif call.messages and call.prompt is None:
            tokens = builder.chat_tokens(
                call.messages, opens_answer=call.add_generation_prompt is not False
            )
        else:
            raise BadRequest("Send either prompt or messages", code="invalid_value", param="prompt")
        strings = builder.engine.tokenizer.pieces(tokens) if call.return_token_strs else None
        return Tokenized(len(tokens), builder.engine.context_length, tokens, strings)

    async def count(self, call: AnyCall, size: int, exchange: Exchange) -> None:
        """Always in a thread: nobody waits for it but who lost a count."""
        assert isinstance(call, CountRequest)
        body = await asyncio.to_thread(self._counted, call)
        await exchange.respond(encode(body), headers=[])

    def _counted(self, call: CountRequest) -> Counted:
        prompt = len(self._builder.prompt_tokens(call))
        answer = len(self._builder.text_tokens(call.answer, special=False))
        return Counted(TokenSums(prompt, answer, prompt + answer))

    async def detokenize(self, call: AnyCall, size: int, exchange: Exchange) -> None:
        assert isinstance(call, DetokenizeRequest)
        engine = self._builder.engine
        for token in call.tokens:
            check_token("tokens", str(token), engine.model.config.vocab_size)
        text = engine.tokenizer.decode(call.tokens, keeps_special=True)
        await exchange.respond(encode(Detokenized(text)), headers=[])
