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

PLAIN_TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


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

    def to_json(self) -> str:
        """The tokenizer file's content, for libraries that read it themselves."""
        return self._tokenizer.to_str()

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
            text = _without_closing(text, str(messages[-1]["content"]).rstrip())
        return self.encode(text)


def _without_closing(text: str, content: str) -> str:
    """Cut what the template puts after the last message: it would end the turn."""
    start = text.rfind(content)
    if not content or start < 0:
        raise TemplateRefused("the last message has no text that could be continued")
    return text[: start + len(content)]


def _template_source(model_dir: Path, settings: dict[str, Any]) -> str:
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    template: str = settings.get("chat_template") or PLAIN_TEMPLATE
    return template


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
