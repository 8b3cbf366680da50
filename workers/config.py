"""EngineConfig: every limit and choice of the engine in one frozen value.

Nothing in `workers` reads the environment: settings arrive here from the command line or a test.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ENGINE_VERSION = "0.2.0"
DEFAULT_MODEL_DIR = Path(".tokenhouse/models/smollm2-135m-instruct")
DEFAULT_KERNEL_DIR = Path(".tokenhouse/kernels")
# Of SmolLM2, which comes with the project's packages.
DEFAULT_PHRASES = Path(__file__).parent / "speculation/phrases.npz"
DEFAULT_EAGLE = Path(__file__).parent / "speculation/eagle.safetensors"

DType = Literal["auto", "float32", "bfloat16"]
Quantisation = Literal["none", "int8", "int4"]
LOOKUPS = ("ngram", "suffix", "phrases")
MODEL_PROPOSERS = ("draft_model", "self_draft", "medusa", "eagle")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Limits of one engine. Counts are tokens unless the name says otherwise."""

    model_dir: Path = DEFAULT_MODEL_DIR
    adapter_dir: Path | None = None
    # "auto", "cpu", "cuda" or "cuda:N". The type is bfloat16 on a GPU and float32 elsewhere.
    device: str = "cpu"
    dtype: DType = "auto"
    cuda_graphs: bool = True
    threads: int = 1
    quantisation: Quantisation = "none"
    kernel_dir: Path = DEFAULT_KERNEL_DIR
    # "off", or names of LOOKUPS and at most one of MODEL_PROPOSERS, joined by "+".
    speculation: str = "off"
    draft_model_dir: Path | None = None
    # Of medusa or eagle; without one, eagle takes `DEFAULT_EAGLE`.
    draft_head: Path | None = None
    draft_layers: int = 0
    phrases: Path = DEFAULT_PHRASES
    draft_depth: int = 4
    suffix_tokens: int = 50_000
    # Both change texts, to compute less; 0 layers is no early exit.
    contextual_sparsity: bool = False
    exit_layer: int = 0
    exit_confidence: float = 0.95
    block_size: int = 16
    kv_blocks: int = 544
    token_budget: int = 128
    max_running_requests: int = 16
    max_waiting_requests: int = 128
    max_context_length: int = 8192
    max_output_tokens: int = 4096
    max_draft_tokens: int = 16
    ngram_min: int = 1
    ngram_max: int = 4
    max_stop_strings: int = 16
    # Of the answers that drafts had a part in, the share that is computed again without any.
    audit_share: float = 0.0

    def __post_init__(self) -> None:
        counts = (
            self.threads,
            self.block_size,
            self.token_budget,
            self.max_running_requests,
            self.max_waiting_requests,
            self.max_context_length,
            self.max_output_tokens,
            self.max_draft_tokens,
            self.draft_depth,
            self.suffix_tokens,
        )
        if min(counts) < 1:
            raise ValueError("every limit of the engine must be at least 1")
        if self.kv_blocks < 2:
            raise ValueError("kv_blocks must be at least 2: block 0 is reserved for padding")
        if not 1 <= self.ngram_min <= self.ngram_max:
            raise ValueError("ngram_min must be at least 1 and at most ngram_max")
        if not 0.0 <= self.audit_share <= 1.0:
            raise ValueError("audit_share must lie between 0 and 1")
        if self.exit_layer < 0 or not 0 < self.exit_confidence <= 1:
            raise ValueError("an exit needs a layer of at least 0 and a confidence in (0, 1]")
        if self.is_approximate and self.speculation != "off":
            raise ValueError("drafts are lossless; early exit and contextual sparsity are not")
        if self.is_approximate and self.quantisation != "none":
            raise ValueError("early exit and contextual sparsity run in fp32 only")
        if self.contextual_sparsity and self.exit_layer:
            raise ValueError("early exit and contextual sparsity cannot be combined")
        if self.token_budget < self.max_running_requests:
            raise ValueError("token_budget must give every running request its token")

        kind, _, index = self.device.partition(":")
        if self.device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdigit()):
            raise ValueError(f'device "{self.device}" is not auto, cpu, cuda or cuda:N')
        names = self.proposers
        if len(set(names)) < len(names) or not set(names) <= {*LOOKUPS, *MODEL_PROPOSERS}:
            raise ValueError(
                f'speculation "{self.speculation}" is not "off" or names joined by "+" from '
                f"{', '.join((*LOOKUPS, *MODEL_PROPOSERS))}"
            )
        if len(set(names) & set(MODEL_PROPOSERS)) > 1:
            raise ValueError(f"only one of {', '.join(MODEL_PROPOSERS)} can be used at a time")

    @property
    def proposers(self) -> tuple[str, ...]:
        return () if self.speculation == "off" else tuple(self.speculation.split("+"))

    @property
    def is_approximate(self) -> bool:
        """Whether texts may differ from those of the whole model."""
        return self.contextual_sparsity or self.exit_layer > 0

    @property
    def max_requests(self) -> int:
        return self.max_running_requests + self.max_waiting_requests

    @property
    def kv_capacity(self) -> int:
        """Tokens that the pool can hold; block 0 is the padding block and is never handed out."""
        return (self.kv_blocks - 1) * self.block_size
