"""Engine progress → OpenAI's response bodies and stream chunks."""

import secrets
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import UNSET

from workers.engine.metrics import RequestUsage
from workers.engine.progress import Progress
from workers.engine.sequence import FinishReason, GenerationRequest
from workers.model.sampler import TokenLogprobs
from workers.server.bodies import (
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatLogprobs,
    Completion,
    Delta,
    DeltaChoice,
    EngineMs,
    FunctionCall,
    NumberedCall,
    PromptDetails,
    ScoredToken,
    Speculation,
    TextChoice,
    TextLogprobs,
    Token,
    Usage,
    UsageSoFar,
)
from workers.text.tokenizer import Tokenizer
from workers.text.tools import ForcedParser, FreeParser, Parsed

DONE = b"data: [DONE]\n\n"

Kind = Literal["chat", "text"]


def encode(body: object) -> bytes:
    return msgspec.json.encode(body)


def event(body: object) -> bytes:
    return b"data: " + encode(body) + b"\n\n"


def usage_body(prompts: list[list[RequestUsage]]) -> Usage:
    """One usage block for all choices of all prompts: a prompt counts once, outputs add up."""
    # Later choices share the blocks of the first, which computed what nobody had.
    firsts = [min(choices, key=lambda usage: usage.cached_tokens) for choices in prompts]
    usages = [usage for choices in prompts for usage in choices]
    prompt = sum(usage.prompt_tokens for usage in firsts)
    completion = sum(usage.completion_tokens for usage in usages)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(sum(usage.cached_tokens for usage in firsts)),
        speculation=Speculation(
            drafted=sum(usage.drafted for usage in usages),
            accepted=sum(usage.accepted for usage in usages),
            steps=sum(usage.steps for usage in usages),
        ),
        engine_ms=EngineMs(
            queue=round(max(usage.queue_ms for usage in firsts), 3),
            prefill=round(max(usage.prefill_ms for usage in firsts), 3),
            decode=round(max(usage.decode_ms for usage in usages), 3),
        ),
    )


@dataclass(slots=True)
class Choice:
    """One choice of a call, and how much of it was told."""

    index: int
    prompt_index: int
    prompt: list[int]
    is_begun: bool = False
    characters: int = 0
    parser: ForcedParser | FreeParser | None = None
    calls_told: int = 0
    usage: RequestUsage | None = None
    output_tokens: int = 0
    cached_tokens: int | None = None  # None until a step has told


class Answers:
    """The choices of one call by request id, prompt after prompt, as OpenAI numbers them."""

    def __init__(self, requests: list[GenerationRequest], *, choices_per_prompt: int) -> None:
        self.by_id = {
            request.request_id: Choice(index, index // choices_per_prompt, request.prompt)
            for index, request in enumerate(requests)
        }
        self.prompt_logprobs: dict[int, list[TokenLogprobs]] = {}

    def note(self, progress: Progress) -> Choice:
        """Remember what the end will need; the choice that it belongs to."""
        choice = self.by_id[progress.request_id]
        if progress.usage is not None:
            choice.usage = progress.usage
        if progress.output_tokens:
            choice.output_tokens = progress.output_tokens
            choice.cached_tokens = progress.cached_tokens
        if progress.reading is not None:
            self.prompt_logprobs[choice.prompt_index] = progress.reading.logprobs
        return choice

    def usage_so_far(self) -> UsageSoFar:
        """The counts of what was told: a prompt counts once, outputs add up."""
        prompts = {choice.prompt_index: len(choice.prompt) for choice in self.by_id.values()}
        cached: dict[int, int] = {}
        for choice in self.by_id.values():
            if choice.cached_tokens is not None:
                # Later choices share the blocks of the first.
                least = cached.get(choice.prompt_index, choice.cached_tokens)
                cached[choice.prompt_index] = min(least, choice.cached_tokens)
        prompt = sum(prompts.values())
        completion = sum(choice.output_tokens for choice in self.by_id.values())
        return UsageSoFar(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptDetails(sum(cached.values())),
        )

    def usage(self) -> Usage:
        prompts: dict[int, list[RequestUsage]] = {}
        for choice in self.by_id.values():
            if choice.usage is not None:
                prompts.setdefault(choice.prompt_index, []).append(choice.usage)
        return usage_body(list(prompts.values()))


@dataclass(slots=True)
class ResponseWriter:
    """Builds the bodies of one call; `echo` puts the prompt before each text."""

    kind: Kind
    response_id: str
    model: str
    created_s: int
    answers: Answers
    tokenizer: Tokenizer
    echo: bool = False
    counts_on: bool = False  # says with every chunk what was used so far

    def chunk(self, progress: Progress) -> bytes:
        choice = self.answers.note(progress)
        body = self._body([self._delta(choice, progress)], is_chunk=True)
        if self.counts_on:
            body.usage = self.answers.usage_so_far()
        choice.is_begun = True
        return event(body)

    def usage_chunk(self) -> bytes:
        body = self._body([], is_chunk=True)
        body.usage = self.answers.usage()
        return event(body)

    def whole(self, answers: list[Progress]) -> bytes:
        choices = [self._whole_choice(self.answers.note(answer), answer) for answer in answers]
        choices.sort(key=lambda choice: choice.index)
        body = self._body(choices, is_chunk=False)
        body.usage = self.answers.usage()
        return encode(body)

    def _body(
        self,
        choices: list[ChatChoice | TextChoice] | list[DeltaChoice | TextChoice],
        *,
        is_chunk: bool,
    ) -> Completion:
        chat: Final = "chat.completion.chunk" if is_chunk else "chat.completion"
        return Completion(
            id=self.response_id,
            object="text_completion" if self.kind == "text" else chat,
            created=self.created_s,
            model=self.model,
            choices=choices,
        )

    def _delta(self, choice: Choice, progress: Progress) -> DeltaChoice | TextChoice:
        if self.kind == "text":
            return self._text_choice(choice, progress)
        parsed = _parsed(choice, progress)
        first = choice.calls_told
        calls = _calls(choice, parsed)
        delta = Delta() if choice.is_begun else Delta(role="assistant")
        if parsed.text or not (choice.is_begun or calls):
            delta.content = parsed.text
        if calls:
            delta.tool_calls = [
                NumberedCall(index=first + number, id=call.id, function=call.function)
                for number, call in enumerate(calls)
            ]
        return DeltaChoice(
            choice.index, delta, self._logprobs(progress), _finish_reason(choice, progress)
        )

    def _whole_choice(self, choice: Choice, answer: Progress) -> ChatChoice | TextChoice:
        if self.kind == "text":
            return self._text_choice(choice, answer)
        parsed = _parsed(choice, answer)
        calls = _calls(choice, parsed)
        text = parsed.text.strip() or None if calls else parsed.text
        message = AnswerMessage(content=text, tool_calls=calls or UNSET)
        return ChatChoice(
            choice.index, message, self._logprobs(answer), _finish_reason(choice, answer)
        )

    def _logprobs(self, progress: Progress) -> ChatLogprobs | None:
        if not progress.logprobs:
            return None
        return ChatLogprobs([self._entry(entry) for entry in progress.logprobs])

    def _entry(self, entry: TokenLogprobs) -> ScoredToken:
        own = self._token(entry.token, entry.logprob)
        top = [self._token(token, value) for token, value in entry.top]
        return ScoredToken(own.token, own.logprob, own.bytes, top)

    def _token(self, token: int, logprob: float) -> Token:
        raw = self.tokenizer.token_bytes(token)
        return Token(self.tokenizer.token_text(token), logprob, list(raw))

    def _text_choice(self, choice: Choice, progress: Progress) -> TextChoice:
        """A choice of a text completion: whole, or what is new of it."""
        text, entries = progress.text, progress.logprobs
        unscored: list[int] = []
        if self.echo and not choice.is_begun:
            text = self.tokenizer.decode(choice.prompt) + text
            read = self.answers.prompt_logprobs.get(choice.prompt_index)
            if read is not None:
                # Nothing comes before the first token that could have foreseen it.
                unscored, entries = choice.prompt[:1], [*read, *entries]
        scored = bool(entries or unscored)
        logprobs = self._text_logprobs(choice, unscored, entries) if scored else None
        return TextChoice(choice.index, text, logprobs, progress.finish_reason)

    def _text_logprobs(
        self, choice: Choice, unscored: list[int], entries: list[TokenLogprobs]
    ) -> TextLogprobs:
        name = self.tokenizer.token_text
        tokens = [name(token) for token in (*unscored, *(entry.token for entry in entries))]
        offsets = []
        for text in tokens:
            offsets.append(choice.characters)
            choice.characters += len(text)
        tops: list[dict[str, float] | None] = [None for _ in unscored]
        for entry in entries:
            # Two tokens may read alike; the likelier one stands for both.
            tops.append({name(token): value for token, value in reversed(entry.top)})
        return TextLogprobs(
            tokens=tokens,
            token_logprobs=[*(None for _ in unscored), *(entry.logprob for entry in entries)],
            top_logprobs=tops if any(tops) else None,
            text_offset=offsets,
        )


def _parsed(choice: Choice, progress: Progress) -> Parsed:
    """New text and calls of a choice; all that was held back, if it has ended."""
    if choice.parser is None:
        return Parsed(progress.text)
    parsed = choice.parser.feed(progress.text)
    if progress.finish_reason is not None:
        rest = choice.parser.finish()
        parsed = Parsed(parsed.text + rest.text, parsed.calls + rest.calls)
    return parsed


def _calls(choice: Choice, parsed: Parsed) -> list[FunctionCall]:
    choice.calls_told += len(parsed.calls)
    return [
        FunctionCall(
            id=f"call_{secrets.token_hex(12)}", function=CalledFunction(call.name, call.arguments)
        )
        for call in parsed.calls
    ]


def _finish_reason(choice: Choice, progress: Progress) -> str | None:
    if progress.finish_reason is FinishReason.STOP and choice.calls_told:
        return "tool_calls"
    return progress.finish_reason
