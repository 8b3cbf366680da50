"""One API call → the engine's requests: prompt tokens, limits, sampling defaults, choices."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from workers.engine import Engine
from workers.sampler import SamplingParams
from workers.sequence import GenerationRequest
from workers.server.errors import BadRequest, ContextTooLong
from workers.server.protocol import ChatRequest, CompletionRequest
from workers.structured import Grammar, GrammarCompiler, GrammarRefused
from workers.tokenizer import TemplateRefused

AnyRequest = ChatRequest | CompletionRequest


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the model's authors recommend, used where a request says nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


def read_defaults(model_dir: Path) -> SamplingDefaults:
    path = model_dir / "generation_config.json"
    stored = json.loads(path.read_text()) if path.is_file() else {}
    if not stored.get("do_sample"):
        return SamplingDefaults()
    return SamplingDefaults(
        temperature=stored.get("temperature", 1.0),
        top_p=stored.get("top_p", 1.0),
        top_k=stored.get("top_k", 0),
    )


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

    def grammar(self, request: AnyRequest) -> Grammar | None:
        """What the answer must be, compiled. Slow for a new schema: not for the event loop."""
        schema = request.schema
        if schema is None:
            return None
        try:
            return self.grammars.json_schema(schema)
        except GrammarRefused as error:
            raise BadRequest(
                f"The schema cannot be used: {error}",
                code="invalid_json_schema",
                param="response_format",
            ) from error

    def prompt(self, request: AnyRequest) -> list[int]:
        """The prompt's tokens. Slow for long texts: not for the event loop."""
        tokenizer = self.engine.tokenizer
        if isinstance(request, CompletionRequest):
            request.check_supported()
            tokens = self._completion_prompt(request)
        else:
            request.check_supported(template_has_tools=tokenizer.supports_tools)
            try:
                tokens = tokenizer.encode_chat(
                    request.template_messages(),
                    tools=request.tools,
                    continue_final=bool(request.continue_final_message),
                )
            except TemplateRefused as error:
                raise BadRequest(str(error), code="invalid_value", param="messages") from error
        limit = self.engine.context_length
        if len(tokens) >= limit:
            raise ContextTooLong(prompt_tokens=len(tokens), context_length=limit)
        return tokens

    def requests(
        self, request: AnyRequest, prompt: list[int], grammar: Grammar | None = None
    ) -> list[GenerationRequest]:
        """One engine request per choice; the later ones reuse the first one's prompt blocks."""
        call_id = secrets.token_hex(12)
        seed = request.seed if request.seed is not None else secrets.randbits(63)
        max_tokens = self._max_tokens(request, len(prompt))
        end_tokens = request.end_tokens(self.engine.model.config.vocab_size)
        return [
            GenerationRequest(
                request_id=f"{call_id}-{choice}",
                prompt=prompt,
                max_tokens=max_tokens,
                sampling=self._sampling(request, seed + choice),
                stop=request.stop_strings,
                stop_token_ids=end_tokens,
                min_tokens=request.fewest_tokens(max_tokens),
                grammar=grammar,
                ignore_eos=bool(request.ignore_eos),
                salt=request.cache_salt or "",
                priority=request.priority or 0,
                leader_id=f"{call_id}-0" if choice else None,
            )
            for choice in range(request.n or 1)
        ]

    def _completion_prompt(self, request: CompletionRequest) -> list[int]:
        if isinstance(request.prompt, str):
            tokens = self.engine.tokenizer.encode(request.prompt)
        else:
            tokens = request.prompt
        vocab_size = self.engine.model.config.vocab_size
        if not tokens or not all(0 <= token < vocab_size for token in tokens):
            raise BadRequest(
                f"prompt must hold at least one token, each from 0 to {vocab_size - 1}",
                code="invalid_value",
                param="prompt",
            )
        return tokens

    def _max_tokens(self, request: AnyRequest, prompt_tokens: int) -> int:
        room = self.engine.context_length - prompt_tokens
        most = self.engine.config.max_output_tokens
        wanted = request.token_limit
        if wanted is not None and wanted > self.engine.context_length:
            raise BadRequest(
                f"max_tokens is {wanted}; this model produces at most {most} tokens",
                code="invalid_value",
                param="max_tokens",
            )
        return min(room, most, wanted or most)

    def _sampling(self, request: AnyRequest, seed: int) -> SamplingParams:
        defaults = self.defaults
        given = request.temperature
        # A caller who sets the temperature means the plain distribution, not our recommended cut.
        top_p = defaults.top_p if given is None else 1.0
        return SamplingParams(
            temperature=defaults.temperature if given is None else given,
            top_p=request.top_p if request.top_p is not None else top_p,
            top_k=max(0, request.top_k if request.top_k is not None else defaults.top_k),
            min_p=request.min_p or 0.0,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            repetition_penalty=request.repetition_penalty or 1.0,
            logit_bias=request.token_bias(self.engine.model.config.vocab_size),
            seed=seed,
            logprobs=request.logprob_count,
        )
