"""Where workers register and send heartbeats, each with a worker key bound to their network."""

from typing import TypedDict

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from gateway.api.authentication import WorkerKeyAuthentication
from gateway.api.base import ApiView
from gateway.api.shapes.serializers import (
    HeartbeatSerializer,
    RegisteredSerializer,
    WorkerRegistrationSerializer,
)
from providers.machines import workers
from providers.models import Worker, WorkerKey


def _answer(worker: Worker) -> Response:
    return Response(
        {
            "worker_id": worker.pk,
            "heartbeat_seconds": workers.HEARTBEAT_S,
            "sku": worker.offer.sku,
        }
    )


class WorkerView(ApiView):
    authentication_classes = (WorkerKeyAuthentication,)

    @staticmethod
    def key_of(request: Request) -> WorkerKey:
        assert isinstance(request.auth, WorkerKey)
        return request.auth


class RegisterView(WorkerView):
    @extend_schema(request=WorkerRegistrationSerializer, responses=RegisteredSerializer)
    def post(self, request: Request) -> Response:
        """Register a worker, or tell what has changed about one."""
        body = WorkerRegistrationSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        lists = {name: tuple(body.validated_data[name]) for name in ("techniques", "features")}
        registration = workers.Registration(**{**body.validated_data, **lists})
        worker = workers.register(
            key=self.key_of(request), registration=registration, now=timezone.now()
        )
        return _answer(worker)


class Gap(TypedDict):
    p95_ms: float
    n: int


class Gaps(TypedDict, total=False):
    alone: Gap
    full: Gap


class Beat(TypedDict):
    """What a worker says that it has done."""

    worker_id: int
    running: int
    waiting: int
    kv_cache_usage: float
    totals: dict[str, float]
    gaps: Gaps


class HeartbeatView(WorkerView):
    @extend_schema(request=HeartbeatSerializer, responses=RegisteredSerializer)
    def post(self, request: Request) -> Response:
        """Say that a worker lives and what it has done; 404 means register again."""
        body = HeartbeatSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        stated: Beat = body.validated_data
        load = {
            "running": stated["running"],
            "waiting": stated["waiting"],
            "kv_cache_usage": stated["kv_cache_usage"],
            "gaps": stated["gaps"],
        }
        worker = workers.heartbeat(
            key=self.key_of(request),
            worker_id=stated["worker_id"],
            load=load,
            totals=stated["totals"],
            now=timezone.now(),
        )
        return _answer(worker)
