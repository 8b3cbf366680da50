"""A worker and the console are two programs: what one says is what the other takes and keeps."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from django.test import Client
from rest_framework.serializers import Serializer

from gateway.api.shapes import serializers
from providers.boards import engine_facts
from providers.boards.shapes import Quality
from providers.machines import worker_facts
from providers.machines.engine_cost import calibrated_work, work_since
from providers.models import Worker
from tests.providers.made_offers import worker_key
from workers.engine import gaps, totals
from workers.quality import QualityFacts
from workers.server import console_bodies as told

GAPS = gaps.GapFigures(alone=gaps.Gap(4.5, 120), full=gaps.Gap(30.0, 44))
COSTS = told.Costs(
    weight_bytes=1,
    full_weight_bytes=2,
    draft_bytes=3,
    expert_bytes=4,
    active_expert_bytes=5,
    calibrated=told.CalibratedWork(
        steps=6, output_tokens=7, busy_seconds=8.5, draft_seconds=0.25, dispatch_seconds=0.125
    ),
    gaps=GAPS,
)
QUALITY = QualityFacts(
    brittle=True,
    worst_slice="code",
    loss_percent=10.0,
    disagreement_percent=2.0,
    measure="perplexity",
    sample=100,
)
REGISTRATION = told.RegistrationBody(
    name="plain",
    base_url="http://127.0.0.1:8101",
    bearer="worker-bearer-secret",
    model="smollm2-135m-instruct",
    context_length=8192,
    max_output_tokens=2048,
    techniques=["paged-kv"],
    features=["json_schema"],
    usd_per_hour="0.36",
    usd_per_hour_source="entered",
    calibration=told.CalibrationFacts(
        input_tokens_per_s=400.0,
        output_tokens_per_s=50.0,
        input_time_share=0.25,
        seconds=12.0,
        sample=16,
        mix="test",
        output_tokens=900,
        joules=120.0,
    ),
    costs=COSTS,
    engine=told.EngineFacts(
        version="1",
        dtype="int8",
        linear="int8",
        threads=2,
        device="cpu",
        energy="rapl",
        quality=QUALITY,
        torch="2",
    ),
)


Say = Callable[[str, msgspec.Struct], tuple[int, bytes]]


def heartbeat(worker_id: int) -> told.HeartbeatBody:
    """Every total is another number."""
    names = totals.Totals.__slots__
    counts: dict[str, Any] = {name: at for at, name in enumerate(names, start=10)}
    return told.HeartbeatBody(
        worker_id=worker_id,
        running=1,
        waiting=2,
        kv_cache_usage=0.25,
        gaps=GAPS,
        totals=told.HeartbeatTotals(**counts, uptime_s=3600.5),
    )


def names_of(shape: type[msgspec.Struct] | type[Serializer[Any]]) -> set[str]:
    if issubclass(shape, msgspec.Struct):
        return set(shape.__struct_fields__)
    return set(shape().fields)


@pytest.mark.parametrize(
    ("says", "takes", "keeps"),
    [
        (told.RegistrationBody, serializers.WorkerRegistrationSerializer, None),
        (told.HeartbeatBody, serializers.HeartbeatSerializer, None),
        (told.Costs, serializers.TechniqueCostsSerializer, worker_facts.Costs),
        (
            told.CalibratedWork,
            serializers.CalibratedWorkSerializer,
            worker_facts.CalibratedWork,
        ),
        (gaps.GapFigures, serializers.GapsSerializer, worker_facts.Gaps),
        (gaps.Gap, serializers.GapSerializer, worker_facts.Gap),
        (QualityFacts, None, Quality),
    ],
)
def test_both_sides_name_the_same_fields(
    says: type[msgspec.Struct],
    takes: type[Serializer[Any]] | None,
    keeps: type[msgspec.Struct] | None,
) -> None:
    for other in (takes, keeps):
        assert other is None or names_of(other) == names_of(says)


@pytest.fixture
def say(client: Client, db: None) -> Say:
    """Posts what a worker says, under a key of its own."""
    headers = {"authorization": f"Bearer {worker_key()[1]}"}

    def post(path: str, body: msgspec.Struct) -> tuple[int, bytes]:
        answer = client.post(
            f"/api/workers/{path}",
            msgspec.json.encode(body),
            content_type="application/json",
            headers=headers,
        )
        return answer.status_code, answer.content

    return post


def registered(say: Say) -> told.Registered:
    status, answer = say("register", REGISTRATION)
    assert status == 200
    return msgspec.json.decode(answer, type=told.Registered)


def test_what_a_worker_says_is_kept_whole_and_answered_in_its_words(say: Say) -> None:
    # when
    answer = registered(say)
    beat = heartbeat(answer.worker_id)
    status, heard = say("heartbeat", beat)
    msgspec.json.decode(heard, type=told.Heard)

    # then
    worker = Worker.objects.get(pk=answer.worker_id)
    assert (status, answer.heartbeat_seconds) == (200, 5)
    kept = worker_facts.costs_of(worker)
    assert msgspec.to_builtins(kept) == msgspec.to_builtins(COSTS)
    assert worker.calibration == msgspec.to_builtins(REGISTRATION.calibration)
    assert worker.totals == msgspec.to_builtins(beat.totals)
    assert msgspec.to_builtins(worker_facts.gaps_now(worker)) == msgspec.to_builtins(GAPS)


def test_what_was_kept_is_found_by_who_reads_it(say: Say) -> None:
    # when
    answer = registered(say)
    say("heartbeat", heartbeat(answer.worker_id))
    worker = Worker.objects.get(pk=answer.worker_id)

    # then: every name that a price or a board looks for is one that a worker says
    assert calibrated_work(worker.calibration).output_tokens == 50 * 2700
    work = work_since(worker.totals, {})
    counted = (work.input_tokens_uncached, work.input_tokens_cached, work.output_tokens)
    assert counted == (10, 11, 12)
    assert (work.input_seconds, work.output_seconds) == (13, 14)
    found = engine_facts.audit(worker)
    assert found is not None
    assert (found.ties, found.different, found.answers) == (19, 20, 18 + 19 + 20)
    energy = engine_facts.energy(worker)
    assert energy is not None
    assert energy.source == "rapl"
    assert energy.joules_per_m_saturated == 100_000.0
    quality = engine_facts.quality(worker)
    assert msgspec.to_builtins(quality) == msgspec.to_builtins(QUALITY)


def test_a_figure_that_is_no_number_moves_nothing(say: Say) -> None:
    # given: what cannot be said in JSON is said as null
    answer = registered(say)
    absurd = heartbeat(answer.worker_id)
    absurd.totals.input_seconds = float("nan")

    # when
    status, _ = say("heartbeat", absurd)

    # then
    worker = Worker.objects.get(pk=answer.worker_id)
    assert (status, worker.totals, worker.load) == (400, {}, {})
