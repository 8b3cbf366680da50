"""Tokens, text and chat templates of a model folder, straight from its tokenizer files.

The template is the model's own, run in a sandbox: a template is code that came with the weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RustTokenizer


class TemplateRefused(ValueError):
    """The model's chat template cannot express these messages."""


class Tokenizer:
    def __init__(self, model_dir: Path) -> None:
        self._tokenizer = RustTokenizer.from_file(str(model_dir / "tokenizer.json"))
        settings = json.loads((model_dir / "tokenizer_config.json").read_text())
        source = _template_source(model_dir, settings)
        self.supports_tools = "tools" in source
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(source)
        self._special = {
            name: settings[name]
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if isinstance(settings.get(name), str)
        }

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def encode_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
    ) -> list[int]:
        """Tokens of the rendered conversation, ready for the assistant's next (or same) turn."""
        try:
            text = self._template.render(
                messages=messages,
                tools=tools,
                add_generation_prompt=not continue_final,
                **self._special,
            )
        except TemplateError as error:
            raise TemplateRefused(str(error)) from error
        if continue_final:
            # Everything the template puts after the last message would close the turn.
            content = str(messages[-1]["content"]).rstrip()
            text = text[: text.rindex(content) + len(content)]
        return self.encode(text)


def _template_source(model_dir: Path, settings: dict[str, Any]) -> str:
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    template: str = (
        settings.get("chat_template") or "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    return template


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
