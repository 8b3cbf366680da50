"""Grammars: which tokens a JSON schema allows next. Compiling and masks are llguidance's.

A compiled grammar is a template, kept in a bounded cache; each choice of a request walks a copy of
its own. Masks apply to logits before a token is drawn, so drafts are verified under them too.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from workers.text import formats

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

GRAMMAR_BYTES_MAX: Final = 65_536
CACHED_GRAMMARS_MAX: Final = 64
# A mask costs at most some 20 ms, and a grammar some 20 MB, before it is refused as too complex.
LIMITS: Final = LLParserLimits(max_lexer_states=10_000, verbose_errors=False)
# One line: a small model left free would fill its answer with white space.
JSON_STYLE: "Final[JsonCompileOptions]" = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
}


class GrammarRefused(ValueError):
    """The schema or grammar cannot be compiled; the text says why."""


class GrammarFailed(RuntimeError):
    """A grammar that compiled became too complex while it was followed."""


class Grammar:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def fresh(self) -> "Grammar":
        """A copy of its own for another answer; only a grammar that was not followed yet is one."""
        return Grammar(self._matcher.deep_copy())

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end of the answer may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def allowed(self, vocab_size: int) -> Tensor:
        """Which tokens may come next: [vocab_size] of bool, at least one of them true."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise GrammarFailed(error_of(self._matcher))
        mask = np.unpackbits(bits, bitorder="little", count=vocab_size)
        return torch.from_numpy(mask.view(np.bool_))

    def accept(self, token: int) -> None:
        """Step over a token that `allowed` permitted."""
        if not self._matcher.consume_token(token):
            raise GrammarFailed(error_of(self._matcher))

    def permitted(self, tokens: Sequence[int]) -> list[int]:
        """The start of `tokens` that the grammar permits here; nothing is stepped over."""
        return list(tokens[: self._matcher.validate_tokens(list(tokens))])

    def forced(self) -> list[int]:
        """Tokens of the text that must come now whatever the model thinks, often none."""
        return self._matcher.compute_ff_tokens()


class GrammarCompiler:
    """Compiles for one tokenizer; safe to call from several threads, slow at the first call."""

    def __init__(self, tokenizer_json: str, *, vocab_size: int, eos: Sequence[int]) -> None:
        self._tokenizer_json = tokenizer_json
        self._vocab_size = vocab_size
        self._eos = list(eos)
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[bytes, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def json_schema(self, schema: str) -> Grammar:
        """The grammar of one line of JSON that is valid under `schema`, a JSON object as text."""
        _check_size(schema)
        try:
            kept = json.dumps(formats.settled(json.loads(schema)))
            source = LLMatcher.grammar_from_json_schema(kept, overrides=JSON_STYLE)
        except RecursionError:
            raise GrammarRefused("it is nested too deeply") from None
        except ValueError as error:
            raise GrammarRefused(str(error)) from error
        return self._cached(source)

    def lark(self, grammar: str) -> Grammar:
        """The grammar written in llguidance's variant of Lark."""
        _check_size(grammar)
        return self._cached(LLMatcher.grammar_from_lark(grammar))

    def _cached(self, source: str) -> Grammar:
        key = hashlib.sha256(source.encode()).digest()
        with self._lock:
            known = self._compiled.get(key)
            if known is not None:
                self._compiled.move_to_end(key)
                return known
        grammar = self._compile(source)
        with self._lock:
            self._compiled[key] = grammar
            while len(self._compiled) > CACHED_GRAMMARS_MAX:
                self._compiled.popitem(last=False)
        return grammar

    def _compile(self, source: str) -> Grammar:
        matcher = LLMatcher(self._read_tokenizer(), source, log_level=0, limits=LIMITS)
        # Some grammars turn out to be empty, or too large, only when the first token is looked for.
        matcher.compute_bitmask()
        if matcher.is_error():
            raise GrammarRefused(error_of(matcher))
        return Grammar(matcher)

    def _read_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = LLTokenizer(
                    self._tokenizer_json, n_vocab=self._vocab_size, eos_token=self._eos
                )
            return self._tokenizer


def error_of(matcher: LLMatcher) -> str:
    reason = matcher.get_error().replace("<non-verbose/>", "").strip()
    return "it allows no text at all" if reason == "NoExtensionBias" else reason


def _check_size(text: str) -> None:
    if len(text.encode()) > GRAMMAR_BYTES_MAX:
        raise GrammarRefused(f"it is larger than {GRAMMAR_BYTES_MAX} bytes")
