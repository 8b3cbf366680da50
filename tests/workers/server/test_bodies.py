"""Answers byte by byte: clients compare, log and parse them by hand."""

import json
from pathlib import Path

import pytest

from workers.engine.metrics import RequestUsage
from workers.engine.progress import Progress
from workers.engine.sequence import FinishReason, GenerationRequest
from workers.model.sampler import TokenLogprobs
from workers.model.shape import UnsupportedModel
from workers.server import errors
from workers.server.call_builder import SamplingDefaults, read_defaults
from workers.server.responses import Answers, Kind, ResponseWriter, encode
from workers.text.tokenizer import Tokenizer
from workers.text.tools import FreeParser

HEAD = '"id":"r-1","object":"%s","created":7,"model":"tiny"'
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
SO_FAR = (
    '"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,'
    '"prompt_tokens_details":{"cached_tokens":1}'
)
USED = RequestUsage(
    prompt_tokens=3,
    completion_tokens=2,
    cached_tokens=1,
    drafted=4,
    accepted=2,
    steps=1,
    queue_ms=0.12345,
    prefill_ms=2.0,
    decode_ms=3.5,
)


def writer(model_dir: Path, kind: Kind, **options: bool) -> ResponseWriter:
    request = GenerationRequest(request_id="a", prompt=[2, 3, 4], max_tokens=9)
    answers = Answers([request], choices_per_prompt=1)
    tokenizer = Tokenizer(model_dir)
    return ResponseWriter(kind, "r-1", "tiny", 7, answers, tokenizer, **options)


def progress(text: str, *, ends: bool = False, scored: bool = False) -> Progress:
    return Progress(
        request_id="a",
        text=text,
        logprobs=[TokenLogprobs(40, -0.5, [(41, -1.5)])] if scored else [],
        finish_reason=FinishReason.STOP if ends else None,
        usage=USED if ends else None,
        output_tokens=2,
        cached_tokens=1,
    )


def test_chunks_of_a_chat(tiny_model_dir: Path):
    head = HEAD % "chat.completion.chunk"
    chat = writer(tiny_model_dir, "chat", counts_on=True)
    assert chat.chunk(progress("Hi", scored=True)).decode() == (
        f'data: {{{head},"choices":[{{"index":0,"delta":{{"role":"assistant","content":"Hi"}},'
        '"logprobs":{"content":[{"token":"G","logprob":-0.5,"bytes":[71],'
        '"top_logprobs":[{"token":"H","logprob":-1.5,"bytes":[72]}]}]},"finish_reason":null}],'
        f'"usage":{{{SO_FAR}}}}}\n\n'
    )
    assert chat.chunk(progress("", ends=True)).decode() == (
        f'data: {{{head},"choices":[{{"index":0,"delta":{{}},"logprobs":null,'
        f'"finish_reason":"stop"}}],"usage":{{{SO_FAR}}}}}\n\n'
    )
    assert chat.usage_chunk().decode() == (
        f'data: {{{head},"choices":[],"usage":{{{SO_FAR},'
        '"speculation":{"drafted":4,"accepted":2,"steps":1},'
        '"engine_ms":{"queue":0.123,"prefill":2.0,"decode":3.5}}}\n\n'
    )


def test_a_call_in_a_chunk_and_in_a_whole_answer(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * count)
    function = '"function":{"name":"f","arguments":"{\\"a\\": 1}"}'
    for streams in (True, False):
        chat = writer(tiny_model_dir, "chat")
        chat.answers.by_id["a"].parser = FreeParser("hermes")
        if streams:
            [choice] = json.loads(chat.chunk(progress(CALL, ends=True))[6:])["choices"]
            assert json.dumps(choice["delta"], separators=(",", ":")) == (
                '{"role":"assistant","tool_calls":[{"index":0,"id":"call_000000000000",'
                f'"type":"function",{function.replace(": 1", ": 1")}}}]}}'
            )
            assert choice["finish_reason"] == "tool_calls"
            continue
        assert (
            chat.whole([progress(CALL, ends=True)])
            .decode()
            .startswith(
                f'{{{HEAD % "chat.completion"},"choices":[{{"index":0,"message":'
                '{"role":"assistant","content":null,"refusal":null,"tool_calls":'
                f'[{{"id":"call_000000000000","type":"function",{function}}}]}},'
                f'"logprobs":null,"finish_reason":"tool_calls"}}],"usage":{{{SO_FAR},'
            )
        )


def test_a_whole_chat_and_a_whole_text(tiny_model_dir: Path):
    chat = writer(tiny_model_dir, "chat").whole([progress("Hi", ends=True)]).decode()
    assert chat.startswith(
        f'{{{HEAD % "chat.completion"},"choices":[{{"index":0,"message":{{"role":"assistant",'
        '"content":"Hi","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":'
    )
    text = writer(tiny_model_dir, "text", echo=True)
    assert (
        text.whole([progress("Hi", ends=True, scored=True)])
        .decode()
        .startswith(
            f'{{{HEAD % "text_completion"},"choices":[{{"index":0,"text":"!\\"#Hi","logprobs":'
            '{"tokens":["G"],"token_logprobs":[-0.5],"top_logprobs":[{"H":-1.5}],"text_offset":[0]},'
            '"finish_reason":"stop"}],"usage":'
        )
    )


def test_an_error():
    error = errors.BadRequest("no such thing", code="invalid_value")
    assert encode(error.body()) == (
        b'{"error":{"message":"no such thing","type":"invalid_request_error","param":null,'
        b'"code":"invalid_value"}}'
    )


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"do_sample": "yes"}, "do_sample must be true or false, not 'yes'"),
        ({"do_sample": True, "temperature": "hot"}, "temperature must be a finite number"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature must be a finite number"),
        ({"do_sample": True, "top_p": [0.9]}, "top_p must be a finite number"),
        ({"do_sample": True, "top_k": 2.5}, "top_k must be a number from 0 on, not 2.5"),
        ({"do_sample": True, "top_k": 10**12}, "top_k"),
    ],
)
def test_defaults_that_are_none_are_named_at_the_start(
    tmp_path: Path, stored: dict[str, object], message: str
):
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    with pytest.raises(UnsupportedModel, match=f"generation_config.json: {message}"):
        read_defaults(tmp_path)


@pytest.mark.parametrize(
    ("stored", "defaults"),
    [
        (None, SamplingDefaults()),
        ({"temperature": 0.6}, SamplingDefaults()),
        ({"do_sample": None, "temperature": 0.6}, SamplingDefaults()),
        ({"do_sample": True, "temperature": 1, "top_k": None}, SamplingDefaults(temperature=1)),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20},
            SamplingDefaults(temperature=0.6, top_p=0.9, top_k=20),
        ),
    ],
)
def test_the_authors_defaults_are_read(
    tmp_path: Path, stored: dict[str, object] | None, defaults: SamplingDefaults
):
    if stored is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    assert read_defaults(tmp_path) == defaults
