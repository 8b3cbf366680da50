"""What an answer is compared with: transformers' greedy text, kept once it was computed.

An answer that differs is judged by transformers' own logits over that very answer: where each of
its tokens is within `LOGIT_GAP` of the best one, two tokens tied and rounding chose.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

LOGIT_GAP: Final = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """A token of an answer that is not the reference's best, and by how much its logit is less."""

    position: int
    token: int
    best: int
    gap: float

    @property
    def is_rounding(self) -> bool:
        return self.gap <= LOGIT_GAP


class Oracle:
    """transformers over the same weights in fp32, one prompt at a time; loaded when first asked."""

    def __init__(self, model_dir: Path) -> None:
        self._model_dir = model_dir
        self.name = f"transformers {transformers.__version__}"

    @cached_property
    def _model(self) -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(
            self._model_dir, local_files_only=True, dtype=torch.float32
        )
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=None, pad_token_id=0
        )
        return model.eval()

    @torch.inference_mode()
    def answer(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """Exactly `tokens` greedy tokens; the end of the text does not end it."""
        output = self._model.generate(
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=tokens,
        )
        answer: list[int] = output[0, len(prompt) :].tolist()
        return answer

    @torch.inference_mode()
    def ties(self, prompt: Sequence[int], answer: Sequence[int]) -> list[Tie]:
        """The tokens of `answer` that are not the best after those before them."""
        logits = self._model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        values, best = logits.max(-1)
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        rows = zip(answer, best.tolist(), (values - chosen).tolist(), strict=True)
        return [
            Tie(position=index, token=token, best=other, gap=gap)
            for index, (token, other, gap) in enumerate(rows)
            if token != other
        ]


class Answers:
    """Reference answers by prompt in a file; one is computed only where it is missing.

    `source` names everything that an answer depends on beside its prompt and length.
    """

    def __init__(
        self, path: Path, *, source: str, compute: Callable[[list[int], int], list[int]]
    ) -> None:
        self._path = path
        self._source = source
        self._compute = compute
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = map(json.loads, lines)
        self._known: dict[str, list[int]] = {line["key"]: line["tokens"] for line in kept}

    def missing(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        return [prompt for prompt in prompts if self._key(prompt, tokens) not in self._known]

    def get(self, prompt: list[int], tokens: int) -> list[int]:
        key = self._key(prompt, tokens)
        if key not in self._known:
            self._known[key] = self._compute(prompt, tokens)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "tokens": self._known[key]}) + "\n")
        return self._known[key]

    def _key(self, prompt: list[int], tokens: int) -> str:
        text = json.dumps([self._source, prompt, tokens])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
