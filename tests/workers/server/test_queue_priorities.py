"""Words for a place in the queue: known ones order the work, others are refused with the list."""

import json
from pathlib import Path

import pytest

from tests.workers.engines import make_engine
from tests.workers.servers import chat_body, running_worker
from workers.engine.engine import Engine
from workers.server.call_builder import CallBuilder, SamplingDefaults
from workers.server.chat_request import ChatRequest
from workers.server.errors import BadRequest
from workers.server.queue_priorities import TIERS
from workers.server.request_fields import decode
from workers.server.text_request import EmbeddingRequest

WAITING = 20


def call(**fields: object) -> ChatRequest:
    return decode(json.dumps(chat_body(**fields)).encode(), ChatRequest)


def submit(engine: Engine, **fields: object) -> str:
    """Queue one chat as the server would; the request's id."""
    [request] = CallBuilder.of(engine, SamplingDefaults()).requests(call(**fields))
    engine.add(request)
    return request.request_id


def ends(engine: Engine) -> list[str]:
    """Run everything; ids in the order in which they ended."""
    ended: list[str] = []
    while engine.has_work:
        ended += [item.request_id for item in engine.step() if item.finish_reason is not None]
    return ended


@pytest.mark.parametrize("field", ["service_tier", "priority"])
@pytest.mark.parametrize("word", ["flex", "batch"])
def test_a_priority_call_overtakes_twenty_that_can_wait(
    tiny_model_dir: Path, field: str, word: str
):
    # given: both seats and eighteen waiting places are taken, and the work has begun
    engine = make_engine(tiny_model_dir, max_running_requests=2)
    patient = [submit(engine, **{field: word}) for _ in range(WAITING)]
    engine.step()
    engine.step()

    # when
    plain = submit(engine)
    urgent = submit(engine, **{field: "priority"})
    ended = ends(engine)

    # then: even those that ran gave up their seats, and nobody was lost
    assert ended[:2] == [urgent, plain] or ended[:2] == [plain, urgent]
    assert sorted(ended[2:]) == sorted(patient)
    assert engine.scheduler.stats.preemptions >= 2


def test_among_the_patient_the_tier_decides_and_then_age(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir, max_running_requests=1)
    order = ["batch", "flex", "batch", "auto", "priority", "default"]
    names = {submit(engine, service_tier=tier): tier for tier in order}

    # then
    ended = [names[name] for name in ends(engine)]
    assert ended == ["priority", "auto", "default", "flex", "batch", "batch"]


def test_a_number_says_it_more_exactly_than_a_word():
    ranks = [call(priority=number, service_tier="batch").rank for number in (-7, 0, 150)]
    assert ranks == [-7, 0, 150]
    assert call().rank == 0
    embedding = b'{"model": "m", "input": "a", "service_tier": "flex"}'
    assert decode(embedding, EmbeddingRequest).rank == TIERS["flex"]


@pytest.mark.parametrize("param", ["service_tier", "priority"])
def test_an_unknown_word_is_refused_with_the_known_ones(tiny_model_dir: Path, param: str):
    with pytest.raises(BadRequest, match="known are priority, default, auto, flex, batch"):
        _ = call(**{param: "urgent"}).rank
    with pytest.raises(BadRequest, match="service_tier is 'urgent'"):
        _ = call(service_tier="urgent", priority=1).rank
    with running_worker(tiny_model_dir) as worker:
        response = worker.chat(**{param: "urgent"})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
        assert "'urgent'" in response.json()["error"]["message"]
        assert worker.bridge.in_flight == 0
        assert worker.chat(**{param: "batch"}).status_code == 200
