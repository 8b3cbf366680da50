"""What an attached server says of its models: names, how much fits into them, whether they chat.

Every server has its own fields, and some say the context only on pages of their own. What is served
comes before what the weights were trained for; one that nobody states is unknown, not a number of
ours. An odd entry is passed over, and told, without the rest.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from providers.machines.checks import ask, root_of
from providers.outbound.small_requests import Question, Reply

# What a server may call its models: it becomes part of skus, pages and a response header.
SERVED_ID: Final = re.compile(
    r"[A-Za-z0-9/._~@](?:[A-Za-z0-9 ._:/@+~()\[\]#&=-]{0,126}[A-Za-z0-9._:/@+~)\]#&=-])?"
)
MODELS_MAX: Final = 100
CONTEXT_MAX: Final = 2**31 - 1
SHOWN_MAX: Final = 100
# Where the context of what runs is stated, most certain first, and that of the weights.
SERVED: Final = (
    "max_model_len",
    "loaded_context_length",
    "meta.n_ctx",
    "n_ctx",
    "context_window",
    "context_length",
    "max_total_tokens",
)
TRAINED: Final = ("max_context_length", "meta.n_ctx_train", "n_ctx_train", "max_sequence_length")
OUTPUTS: Final = (
    "max_output_tokens",
    "max_completion_tokens",
    "top_provider.max_completion_tokens",
)
# What models that do not chat are said to be, in fields of these names.
KINDS: Final = ("type", "task", "pipeline_tag", "model_type", "mode")
NO_CHAT_KIND: Final = re.compile(
    r"embed|rerank|rank|classif|reward|score|transcri|speech|^audio$|^(tts|stt|asr)$|image|moderat"
    r"|feature-extraction|sentence-similarity",
    re.IGNORECASE,
)
CHAT_KIND: Final = re.compile(r"chat|llm|vlm|text-generation|image-text-to-text|completion", re.I)
NO_CHAT_NAME: Final = re.compile(
    r"embed|rerank|whisper|stable-diffusion|distilbert|dall-e|sdxl|siglip|colbert"
    r"|(^|[-/_.:])(bge|gte|e5|minilm|clip|tts|stt|asr|kokoro|parakeet|orpheus|flux|reward)"
    r"([-_.:\d]|$)"
)
# Abilities of which one that can chat has one, where a server lists any.
CHATS: Final = frozenset({"completion", "chat", "completion_chat", "text-generation"})

Tell = Callable[[str], object]
# What a server says of one model, by names of its own: each is looked at before it is believed.
Entry = Mapping[str, object]


class PoolRefused(ValueError):
    """What was asked does not fit, or the server did not answer as one of its kind."""


@dataclass(frozen=True, slots=True)
class Served:
    """One model of a server. None where nobody says; `maker` is who made the server."""

    id: str
    context: int | None = None
    trained: int | None = None
    output: int | None = None
    maker: str = ""

    @property
    def context_length(self) -> int | None:
        return self.context or self.trained


class _Listed(msgspec.Struct):
    data: list[object]


def listed(*, base_url: str, headers: Mapping[str, str], tell: Tell) -> list[Served]:
    """The chat models under /models, their limits read there or on the server's own pages."""
    (reply,) = ask([Question(f"{base_url}/models", headers, approved=True)])
    _check(reply, f"{base_url}/models")
    try:
        entries = msgspec.json.decode(reply.body, type=_Listed).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PoolRefused(f"{base_url}/models is no list of models") from None
    if len(entries) > MODELS_MAX:
        tell(f"the server lists {len(entries)} models; the first {MODELS_MAX} are looked at")
    pages = _Pages(base_url, headers)
    found = []
    for stated in entries[:MODELS_MAX]:
        entry: Entry = stated if isinstance(stated, dict) else {}
        if (said := _odd(entry.get("id"))) or (said := _no_chat(entry)):
            tell(said)
        else:
            found.append(_served(entry))
    if any(one.context is None for one in found):
        found = pages.completed(found, tell)
    if entries and not found:
        raise PoolRefused("the server lists no chat model whose name can be sold")
    return found


def named(
    names: Sequence[str], *, check_url: str, base_url: str, headers: Mapping[str, str]
) -> list[Served]:
    """Models that the operator names, of a server that lists none but answers at `check_url`. What
    the operator calls a chat model is one."""
    for name in names[:MODELS_MAX]:
        if not is_name(name):
            raise PoolRefused(f"{name[:SHOWN_MAX]!r} is no name of a model")
    (reply,) = ask([Question(check_url, headers, approved=True)])
    _check(reply, check_url)
    asked = [Served(name) for name in names[:MODELS_MAX]]
    return _Pages(base_url, headers).completed(asked, tell=lambda _: None)


def _check(reply: Reply, url: str) -> None:
    if reply.problem:
        raise PoolRefused(f"{url}: {reply.problem}")
    if reply.status != 200:
        raise PoolRefused(f"{url} answered {reply.status}")


def is_name(name: str) -> bool:
    return bool(SERVED_ID.fullmatch(name)) and bool(name.strip("/. "))


def _odd(name: object) -> str:
    """Why an entry of this name cannot be sold under it; empty where it can."""
    if isinstance(name, str) and is_name(name):
        return ""
    return f"passed over: the server calls a model {str(name)[:SHOWN_MAX]!r}, which is no name"


def _no_chat(entry: Entry) -> str:
    """Why this is no chat model: by what the server says of it, and only then by its name."""
    name = str(entry["id"])
    kinds = [kind for at in KINDS if isinstance(kind := entry.get(at), str)]
    abilities = entry.get("capabilities")
    if isinstance(abilities, Mapping):
        abilities = [ability for ability, has in abilities.items() if has]
    if isinstance(abilities, list):
        stated = {str(ability).lower() for ability in abilities}
        kinds += ["completion"] if stated & CHATS else sorted(stated)
    chats = any(CHAT_KIND.search(kind) for kind in kinds)
    other = next((kind for kind in kinds if NO_CHAT_KIND.search(kind)), "")
    if not chats and not other and NO_CHAT_NAME.search(name.lower()):
        other = "not for chat, by its name"
    if chats or not other:
        return ""
    return f"passed over: {name} is {other[:SHOWN_MAX]}; name it with --model to sell it as chat"


def _served(entry: Entry) -> Served:
    owner = entry.get("owned_by")
    return Served(
        id=str(entry["id"]),
        context=_first(entry, SERVED),
        trained=_first(entry, TRAINED),
        output=_first(entry, OUTPUTS),
        maker=owner.lower() if isinstance(owner, str) else "",
    )


def _first(entry: object, paths: Iterable[str]) -> int | None:
    for path in paths:
        value = entry
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if (tokens := _tokens(value)) is not None:
            return tokens
    return None


def _tokens(value: object) -> int | None:
    """A limit as servers write it: 4096, 4096.0 or "4096"; None for what can be none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 1 <= value <= CONTEXT_MAX else None


class _Pages:
    """Where servers say the rest: llama.cpp at /props, TGI at /info, LM Studio at /api/v0/models,
    Ollama at /api/ps (what is loaded) and /api/show (what each can do)."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._root = root_of(base_url)
        self._headers = headers

    def completed(self, found: Sequence[Served], tell: Tell) -> list[Served]:
        """The same models with what these pages add; without those that they call no chat."""
        props, info, studio, running = self._ask("/props", "/info", "/api/v0/models", "/api/ps")
        slot = _first(props, ("default_generation_settings.n_ctx", "n_ctx"))
        of_server = slot or _first(info, ("max_total_tokens",))
        loaded = {**_by_name(studio, "data", "id"), **_by_name(running, "models", "name", "model")}
        shown: Mapping[str, Entry] = {}
        if isinstance(running, dict) and isinstance(running.get("models"), list):
            shown = self._shown(found)
        completed = []
        for one in found:
            entry = {**shown.get(one.id, {}), **loaded.get(one.id, {}), "id": one.id}
            if said := _no_chat(entry):
                tell(said)
                continue
            own = _first(entry, ("loaded_context_length", "context_length"))
            completed.append(
                replace(
                    one,
                    context=one.context or own or of_server,
                    trained=one.trained or _first(entry, TRAINED),
                )
            )
        return completed

    def _shown(self, found: Sequence[Served]) -> Mapping[str, Entry]:
        """What Ollama says of each: the context that it is run with, if its file names one, and
        what the weights were trained for."""
        url = f"{self._root}/api/show"
        asked = [
            Question(url, self._headers, approved=True, body=msgspec.json.encode({"model": one.id}))
            for one in found
        ]
        return {
            one.id: _of_ollama(_json(reply)) for one, reply in zip(found, ask(asked), strict=True)
        }

    def _ask(self, *paths: str) -> list[object]:
        asked = [Question(f"{self._root}{path}", self._headers, approved=True) for path in paths]
        return [_json(reply) for reply in ask(asked)]


def _json(reply: Reply) -> object:
    if reply.status != 200:
        return None
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _by_name(page: object, rows: str, *names: str) -> dict[str, Entry]:
    listed = page.get(rows) if isinstance(page, dict) else None
    entries = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return {str(row[name]): row for row in entries for name in names if name in row}


def _of_ollama(page: object) -> Entry:
    if not isinstance(page, dict):
        return {}
    entry: dict[str, object] = {"capabilities": page.get("capabilities")}
    parameters = page.get("parameters")
    if isinstance(parameters, str) and (stated := re.search(r"(?m)^num_ctx\s+(\d+)", parameters)):
        entry["context_length"] = stated[1]
    facts = page.get("model_info")
    if isinstance(facts, dict):
        trained = (facts[name] for name in facts if name.endswith(".context_length"))
        entry["max_context_length"] = next(trained, None)
    return entry
