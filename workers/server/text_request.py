"""The bodies of text completions and embeddings: one text or several, as text or as tokens."""

from typing import Annotated, Literal

from msgspec import Meta

from workers.server.errors import BadRequest
from workers.server.request_fields import (
    CountOrNone,
    Queued,
    Sampling,
    TopLogprobs,
    unsupported,
)

MAX_PROMPTS = 64
DEFAULT_MAX_TOKENS = 16

# One text, its tokens, several texts, or the tokens of several.
Texts = str | Annotated[list[str | int | list[int]], Meta(min_length=1)]


def texts_of(texts: Texts, *, param: str) -> list[str | list[int]]:
    """Each text by itself; a mixture is refused."""
    if isinstance(texts, str):
        return [texts]
    numbers = [item for item in texts if isinstance(item, int)]
    if numbers:
        if len(numbers) < len(texts):
            raise _refused(param, "mixes tokens and texts")
        return [numbers]
    if len(texts) > MAX_PROMPTS:
        raise _refused(param, f"holds {len(texts)} texts; at most {MAX_PROMPTS} are allowed")
    return [item for item in texts if not isinstance(item, int)]


class CompletionRequest(Sampling, kw_only=True):
    prompt: Texts
    max_tokens: CountOrNone | None = None
    add_special_tokens: bool | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: TopLogprobs | None = None
    best_of: int | None = None

    @property
    def token_limit(self) -> int | None:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        return self.logprobs

    @property
    def prompt_logprobs(self) -> int | None:
        return self.logprobs if self.echo else None

    def check_supported(self) -> None:
        if self.suffix:
            raise unsupported("suffix", "text cannot be filled in before a given end")
        if self.best_of not in (None, self.n or 1):
            raise unsupported("best_of", "every choice is returned; ask for n")
        if self.max_tokens == 0 and not self.echo:
            raise _refused("max_tokens", "is 0: nothing would be returned without echo")


class EmbeddingRequest(Queued, kw_only=True):
    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    add_special_tokens: bool | None = None

    def check_supported(self) -> None:
        if self.dimensions is not None:
            raise unsupported("dimensions", "the vectors of this model cannot be shortened")


def _refused(param: str, why: str) -> BadRequest:
    return BadRequest(f"{param} {why}", code="invalid_value", param=param)
