"""What attached servers say of their models, as each kind of them says it."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from billing.models import PriceVersion
from providers.machines import checks, pools
from providers.machines.pool_listing import PoolRefused
from providers.machines.pools import Facts, Terms
from providers.market import offers
from providers.models import Model, Offer, Provider
from tests.fakes.upstream import Exchange, FakeUpstream
from tests.providers.made_offers import NOW

pytestmark = pytest.mark.django_db

TERMS = Terms(Decimal("0.10"), Decimal("0.40"))


class Server:
    """Answers each path with its page, 404 elsewhere; what is posted to /api/show by its model."""

    def __init__(self, **pages: Any) -> None:
        self.pages = {f"/{name.replace('__', '/')}": page for name, page in pages.items()}
        self.fake = FakeUpstream()
        self.fake.behaviours[""] = self._answer
        self.fake.behaviours |= dict.fromkeys(self.pages.get("/api/show", {}), self._shown)
        self.fake.start()

    async def _answer(self, call: Exchange) -> None:
        page = self.pages.get(call.seen.path)
        await call.answer(404 if page is None else 200, {} if page is None else page)

    async def _shown(self, call: Exchange) -> None:
        await call.answer(200, self.pages["/api/show"][call.seen.model])


def attach(
    server: Server, *, now: datetime = NOW, **facts: Any
) -> tuple[dict[str, int | None], list[str]]:
    """Each sku's context, and what was told."""
    told: list[str] = []
    try:
        made = pools.attach(
            name="lab",
            base_url=server.fake.url,
            bearer="",
            terms=TERMS,
            recorded_by="test",
            now=now,
            facts=Facts(**facts),
            tell=told.append,
        )
    finally:
        server.fake.stop()
    return {offer.sku.removeprefix("pool-lab/"): offer.context_length for offer in made}, told


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"meta": {"n_ctx": 2048, "n_ctx_train": 131_072}}, 2048),
        ({"meta": {"n_ctx_train": 131_072}}, 131_072),
        ({"context_window": 32_768}, 32_768),
        ({"context_length": "16384"}, 16_384),
        ({"max_context_length": 40_960.0}, 40_960),
        ({"loaded_context_length": 4096, "max_context_length": 131_072}, 4096),
        ({"max_model_len": -1, "context_length": 8000}, 8000),
        ({"max_model_len": True}, None),
        ({"max_model_len": 2**31}, None),
        ({"max_model_len": None, "meta": []}, None),
        ({}, None),
    ],
)
def test_a_context_is_read_wherever_it_is_stated(
    fields: dict[str, Any], expected: int | None
) -> None:
    found, told = attach(Server(v1__models={"data": [{"id": "fox", **fields}]}))

    assert (found, told) == ({"fox": expected}, [])


@pytest.mark.parametrize(
    "pages",
    [
        {"props": {"default_generation_settings": {"n_ctx": 5000}}},
        {"info": {"max_total_tokens": 5000, "max_input_tokens": 4000}},
        {
            "api__v0__models": {
                "data": [{"id": "fox", "type": "llm", "loaded_context_length": 5000}]
            }
        },
        {"api__ps": {"models": [{"name": "fox", "context_length": 5000}]}, "api__show": {}},
        {
            "api__ps": {"models": []},
            "api__show": {
                "fox": {
                    "capabilities": ["completion", "tools"],
                    "parameters": "temperature 0.6\nnum_ctx                        5000",
                    "model_info": {"llama.context_length": 131_072},
                }
            },
        },
    ],
)
def test_llama_cpp_tgi_lm_studio_and_ollama_say_it_on_pages_of_their_own(
    pages: dict[str, Any],
) -> None:
    listed = {"data": [{"id": "fox", "meta": {"n_ctx_train": 131_072}}]}

    found, _ = attach(Server(v1__models=listed, **pages))

    assert found == {"fox": 5000}


def test_an_unknown_context_is_no_number_of_ours() -> None:
    attach(Server(v1__models={"data": [{"id": "fox"}]}))

    (view,) = offers.views(NOW)
    assert (view.context_length, view.max_output_tokens, view.not_routable) == (0, 0, "")


def test_what_the_operator_says_comes_first() -> None:
    listed = {"data": [{"id": "fox", "max_model_len": 4096}, {"id": "owl"}, {"id": "emu"}]}

    found, _ = attach(Server(v1__models=listed), contexts={"": 1000, "owl": 2000})

    assert found == {"fox": 1000, "owl": 2000, "emu": 1000}


def test_a_context_of_a_model_that_is_not_served_is_refused() -> None:
    with pytest.raises(PoolRefused, match="serves no owl"):
        attach(Server(v1__models={"data": [{"id": "fox"}]}), contexts={"owl": 2000})
    assert not Provider.objects.exists()


def test_one_odd_entry_is_passed_over_and_told() -> None:
    # given
    names = ["a\r\nb", "", "=1+1", 7, None, "x" * 200, "/models/Fox 7B", "owl:8b", "/"]
    entries: list[Any] = [{"id": name, "max_model_len": 10} for name in names]

    # when
    found, told = attach(Server(v1__models={"data": [*entries, "fox", {}]}))

    # then
    assert found == {"/models/fox 7b": 10, "owl:8b": 10}
    assert len(told) == 9
    assert told[2] == "passed over: the server calls a model '=1+1', which is no name"


def test_tags_are_models_and_copies_of_one_are_variants() -> None:
    # given
    names = ["qwen3:8b", "qwen3:32b", "fox:latest", "Acme/Owl", "Acme/Owl-FP8"]

    # when
    attach(Server(v1__models={"data": [{"id": name} for name in names]}))

    # then
    sold = {offer.upstream_model: (offer.model.slug, offer.variant) for offer in _offers()}
    assert sold == {
        "qwen3:8b": ("qwen3-8b", ""),
        "qwen3:32b": ("qwen3-32b", ""),
        "fox:latest": ("fox", ""),
        "Acme/Owl": ("owl", "acme/owl"),
        "Acme/Owl-FP8": ("owl", "acme/owl-fp8"),
    }


def _offers() -> list[Offer]:
    return list(Offer.objects.select_related("model"))


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "nomic-embed-text"},
        {"id": "BAAI/bge-m3"},
        {"id": "jina-reranker-v2"},
        {"id": "openai/whisper-large-v3"},
        {"id": "kokoro-tts"},
        {"id": "plain", "type": "embeddings"},
        {"id": "plain", "type": "rerank"},
        {"id": "plain", "task": "audio"},
        {"id": "plain", "pipeline_tag": "feature-extraction"},
        {"id": "plain", "capabilities": ["embedding"]},
        {"id": "plain", "capabilities": {"completion_chat": False, "audio_transcription": True}},
    ],
)
def test_what_does_not_chat_is_no_chat_offer(entry: dict[str, Any]) -> None:
    found, told = attach(Server(v1__models={"data": [entry, {"id": "fox", "max_model_len": 9}]}))

    assert found == {"fox": 9}
    assert len(told) == 1
    assert told[0].startswith(f"passed over: {entry['id']} is ")
    assert Model.objects.count() == Offer.objects.count() == PriceVersion.objects.count() == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "my-embedding-chat", "type": "llm"},
        {"id": "plain", "capabilities": ["completion", "embedding"]},
        {"id": "plain", "capabilities": {"completion_chat": True, "audio": True}},
        {"id": "Qwen2-Audio-7B-Instruct"},
        {"id": "eclipse-7b"},
        {"id": "plain", "pipeline_tag": "image-text-to-text"},
    ],
)
def test_what_chats_is_sold(entry: dict[str, Any]) -> None:
    found, told = attach(Server(v1__models={"data": [{**entry, "max_model_len": 9}]}))

    assert (list(found.values()), told) == ([9], [])


def test_a_server_of_embeddings_alone_is_refused() -> None:
    with pytest.raises(PoolRefused, match="no chat model"):
        attach(Server(v1__models={"data": [{"id": "bge-m3"}]}))
    assert not Provider.objects.exists()


def test_a_pool_that_keeps_prompts_apart_gets_a_salt_of_each_tenant() -> None:
    # given a vLLM server that says so, one that its metrics show to be one, and one by option
    attach(Server(v1__models={"data": [{"id": "fox", "owned_by": "vllm"}]}))
    assert _salted() == (True, True)

    later = NOW + timedelta(seconds=1)
    attach(Server(v1__models={"data": [{"id": "fox"}]}), now=later, salted=False)
    assert _salted() == (False, False)

    Provider.objects.update(salted=None)
    server = Server(v1__models={"data": [{"id": "fox"}]}, metrics=b"vllm:num_requests_running 1\n")
    Provider.objects.update(base_url=server.fake.url)
    assert checks.read_loads(now=NOW) == 1
    server.fake.stop()

    assert _salted() == (True, True)


def _salted() -> tuple[bool | None, bool]:
    (view,) = offers.views(NOW)
    return Provider.objects.get().salted, view.salted


def test_the_command_takes_contexts_by_model(capsys: pytest.CaptureFixture[str]) -> None:
    # given
    server = Server(v1__models={"data": [{"id": "fox"}, {"id": "bge-m3"}]})
    money = ("--input-usd", "1", "--output-usd", "2")

    # when
    call_command(
        "attach_pool", "lab", server.fake.url, *money, "--context-length", "fox=5000",
        "--cache-salt", "yes", "--fetches",
    )  # fmt: skip
    server.fake.stop()

    # then
    offer = Offer.objects.get()
    assert (offer.context_length, offer.provider.salted) == (5000, True)
    assert offer.capabilities == ["chat", "fetches"]
    assert "bge-m3 is not for chat, by its name" in capsys.readouterr().err
    with pytest.raises(CommandError, match="is no context length"):
        call_command("attach_pool", "lab", server.fake.url, *money, "--context-length", "fox=x")
