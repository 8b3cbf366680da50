"""One API call → the engine's requests: prompt tokens, limits, sampling defaults, choices.

Slow for long texts and new schemas: not for the event loop.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest
from workers.json_values import Fields, Json, JsonRefused, read_object
from workers.model.families import GENERATION
from workers.model.sampler import SamplingParams
from workers.model.shape import UnsupportedModel
from workers.server.chat_request import ChatRequest, Message, template_messages
from workers.server.errors import BadRequest, ContextTooLong
from workers.server.text_request import CompletionRequest, EmbeddingRequest, Texts, texts_of
from workers.text.structured import Grammar, GrammarCompiler, GrammarRefused
from workers.text.tokenizer import TemplateRefused
from workers.text.tools import OPENINGS, ForcedParser, FreeParser, forced_grammar, instructions


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the model's authors recommend, used where a request says nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


def read_defaults(model_dir: Path) -> SamplingDefaults:
    path = model_dir / GENERATION
    try:
        stored = Fields(read_object(path) if path.is_file() else {}, source=GENERATION)
        if not stored.flag("do_sample", False):
            return SamplingDefaults()
        return SamplingDefaults(
            temperature=stored.number("temperature", 1.0),
            top_p=stored.number("top_p", 1.0),
            top_k=stored.count("top_k", 0, least=0),
        )
    except JsonRefused as error:
        raise UnsupportedModel(str(error)) from error


@dataclass(frozen=True, slots=True)
class CallBuilder:
    engine: Engine
    defaults: SamplingDefaults
    grammars: GrammarCompiler

    @classmethod
    def of(cls, engine: Engine, defaults: SamplingDefaults) -> "CallBuilder":
        config = engine.model.config
        grammars = GrammarCompiler(
            engine.tokenizer.to_json(), vocab_size=config.vocab_size, eos=config.eos_token_ids
        )
        return cls(engine, defaults, grammars)

    def requests(self, call: ChatRequest | CompletionRequest) -> list[GenerationRequest]:
        """One request per prompt and choice; later choices reuse the first one's prompt blocks."""
        if isinstance(call, ChatRequest):
            prompts = [self.prompt_tokens(call)]
            prompt_logprobs = None
        else:
            call.check_supported()
            prompts = self._prompts(call.prompt, param="prompt", special=call.add_special_tokens)
            prompt_logprobs = call.prompt_logprobs
        choices = call.n or 1
        self._check_count(len(prompts) * choices)
        grammar = self._grammar(call)
        seed = call.seed if call.seed is not None else secrets.randbits(63)
        call_id = secrets.token_hex(12)
        made: list[GenerationRequest] = []
        for number, prompt in enumerate(prompts):
            for choice in range(choices):
                first = choice == 0
                made.append(
                    self._request(
                        call,
                        prompt,
                        request_id=f"{call_id}-{number}-{choice}",
                        leader_id=None if first else f"{call_id}-{number}-0",
                        # Prompts of one call may be alike, and shall still be answered apart.
                        seed=seed + number * choices + choice,
                        grammar=grammar,
                        prompt_logprobs=prompt_logprobs if first else None,
                    )
                )
        return made

    def readings(self, call: EmbeddingRequest) -> list[GenerationRequest]:
        """Requests that end with their prompts, for the vectors of these."""
        call.check_supported()
        prompts = self._prompts(call.input, param="input", special=call.add_special_tokens)
        self._check_count(len(prompts))
        call_id = secrets.token_hex(12)
        return [
            GenerationRequest(
                request_id=f"{call_id}-{number}",
                prompt=prompt,
                max_tokens=0,
                pooled=True,
                salt=call.cache_salt or "",
                priority=call.rank,
            )
            for number, prompt in enumerate(prompts)
        ]

    def text_tokens(self, text: str, *, special: bool | None) -> list[int]:
        """Tokens of a plain text, with those its tokenizer puts around one unless told not to."""
        return self.engine.tokenizer.encode(text, special=special is not False)

    def chat_tokens(self, messages: list[Message], *, opens_answer: bool = True) -> list[int]:
        return self._rendered(messages, opens_answer=opens_answer)

    def parser(self, call: ChatRequest) -> ForcedParser | FreeParser | None:
        """What turns this call's text into function calls; one for each choice."""
        style = self.engine.tokenizer.tool_style
        if not call.usable_tools:
            return None
        if call.forced_functions:
            return ForcedParser()
        return FreeParser(style) if style is not None else None

    def prompt_tokens(self, call: ChatRequest) -> list[int]:
        """What a chat call's prompt is to the model, tools and template included."""
        style = self.engine.tokenizer.tool_style
        call.check_supported(template_has_tools=style is not None)
        tools, messages, opening = call.usable_tools, call.messages, ""
        if tools and style is None:
            messages = [Message(role="system", content=instructions(tools)), *messages]
        elif style is not None and call.forced_functions:
            opening = OPENINGS[style]
        tokens = self._rendered(
            messages,
            tools=tools or None,
            continue_final=bool(call.continue_final_message),
            opening=opening,
        )
        return self._fitting(tokens, param="messages")

    def _rendered(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Json]] | None = None,
        continue_final: bool = False,
        opens_answer: bool = True,
        opening: str = "",
    ) -> list[int]:
        try:
            return self.engine.tokenizer.encode_chat(
                template_messages(messages),
                tools=tools,
                continue_final=continue_final,
                opens_answer=opens_answer,
                opening=opening,
            )
        except TemplateRefused as error:
            raise BadRequest(str(error), code="invalid_value", param="messages") from error

    def _prompts(self, texts: Texts, *, param: str, special: bool | None) -> list[list[int]]:
        prompts = []
        for text in texts_of(texts, param=param):
            tokens = self.text_tokens(text, special=special) if isinstance(text, str) else text
            self._check_tokens(tokens, param)
            prompts.append(self._fitting(tokens, param=param))
        return prompts

    def _check_tokens(self, tokens: list[int], param: str) -> None:
        vocab_size = self.engine.model.config.vocab_size
        if not tokens or not all(0 <= token < vocab_size for token in tokens):
            raise BadRequest(
                f"{param} must hold at least one token, each from 0 to {vocab_size - 1}",
                code="invalid_value",
                param=param,
            )

    def _fitting(self, tokens: list[int], *, param: str) -> list[int]:
        limit = self.engine.context_length
        if len(tokens) >= limit:
            raise ContextTooLong(prompt_tokens=len(tokens), context_length=limit, param=param)
        return tokens

    def _check_count(self, count: int) -> None:
        most = self.engine.config.max_requests
        if count > most:
            raise BadRequest(
                f"The call asks for {count} answers at once; this worker takes {most}",
                code="invalid_value",
                param="n",
            )

    def _grammar(self, call: ChatRequest | CompletionRequest) -> Grammar | None:
        """What the answer must be, compiled."""
        functions = call.forced_functions if isinstance(call, ChatRequest) else []
        param = "tools" if functions else "response_format"
        try:
            if functions:
                style = self.engine.tokenizer.tool_style
                return self.grammars.lark(forced_grammar(functions, style))
            return None if call.schema is None else self.grammars.json_schema(call.schema)
        except GrammarRefused as error:
            raise BadRequest(
                f"The schema cannot be used: {error}", code="invalid_json_schema", param=param
            ) from error

    def _request(
        self,
        call: ChatRequest | CompletionRequest,
        prompt: list[int],
        *,
        request_id: str,
        leader_id: str | None,
        seed: int,
        grammar: Grammar | None,
        prompt_logprobs: int | None,
    ) -> GenerationRequest:
        max_tokens = self._max_tokens(call.token_limit, len(prompt))
        return GenerationRequest(
            request_id=request_id,
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=self._sampling(call, seed),
            stop=call.stop_strings,
            stop_token_ids=call.end_tokens(self.engine.model.config.vocab_size),
            min_tokens=call.fewest_tokens(max_tokens),
            keeps_special=isinstance(call, ChatRequest) and bool(call.usable_tools),
            prompt_logprobs=prompt_logprobs,
            grammar=grammar,
            ignore_eos=bool(call.ignore_eos),
            salt=call.cache_salt or "",
            priority=call.rank,
            leader_id=leader_id,
        )

    def _max_tokens(self, wanted: int | None, prompt_tokens: int) -> int:
        room = self.engine.context_length - prompt_tokens
        most = self.engine.config.max_output_tokens
        if wanted is None:
            return min(room, most)
        if wanted > self.engine.context_length:
            raise BadRequest(
                f"max_tokens is {wanted}; this model produces at most {most} tokens",
                code="invalid_value",
                param="max_tokens",
            )
        return min(room, most, wanted)

    def _sampling(self, call: ChatRequest | CompletionRequest, seed: int) -> SamplingParams:
        defaults = self.defaults
        given = call.temperature
        # A caller who sets the temperature means the plain distribution, not our recommended cut.
        top_p = defaults.top_p if given is None else 1.0
        return SamplingParams(
            temperature=defaults.temperature if given is None else given,
            top_p=call.top_p if call.top_p is not None else top_p,
            top_k=max(0, call.top_k if call.top_k is not None else defaults.top_k),
            min_p=call.min_p or 0.0,
            presence_penalty=call.presence_penalty or 0.0,
            frequency_penalty=call.frequency_penalty or 0.0,
            repetition_penalty=call.repetition_penalty or 1.0,
            logit_bias=call.token_bias(self.engine.model.config.vocab_size),
            seed=seed,
            logprobs=call.logprob_count,
        )
