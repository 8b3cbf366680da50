"""What is public: the boards and the price history. No key is needed."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TypedDict

import msgspec
from django.http import Http404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from billing.kinds import ServiceTier
from billing.models import PriceVersion
from billing.prices import versions as prices
from billing.rates import Window
from gateway.api.base import ApiView
from gateway.api.shapes import described
from gateway.api.shapes.answers import PriceListAnswer, VersionAnswer
from gateway.api.shapes.money_fields import usd_per_million_text
from providers.boards import leaderboards
from providers.boards.leaderboards import Board, Series
from providers.boards.shapes import HomeRow
from providers.boards.windows import DEFAULT_WINDOW, WINDOWS

RATE_FIELDS = (
    "input_pico",
    "cache_read_pico",
    "cache_write_5m_pico",
    "cache_write_1h_pico",
    "output_pico",
    "reasoning_pico",
    "input_audio_pico",
    "input_image_pico",
    "output_audio_pico",
)
HISTORY_OVER = timedelta(days=365)
WINDOW_PARAMETER = OpenApiParameter(
    "window", OpenApiTypes.STR, enum=list(WINDOWS), default=DEFAULT_WINDOW
)


class PublicView(ApiView):
    authentication_classes = ()
    permission_classes = (AllowAny,)


class HomeAnswer(TypedDict):
    models: list[HomeRow]


class HomeBoardView(PublicView):
    @extend_schema(operation_id="v1_leaderboards_list", responses=described.answer(HomeAnswer))
    def get(self, request: Request) -> Response:
        """The leading models. Prices are micro-dollars per million tokens (`_pico`)."""
        return Response({"models": msgspec.to_builtins(leaderboards.home())})


class BoardView(PublicView):
    @extend_schema(parameters=[WINDOW_PARAMETER], responses=described.answer(Board))
    def get(self, request: Request, model: str) -> Response:
        """One model's offers, ranked by effective price; see docs/leaderboards.md."""
        board = leaderboards.board(model, request.query_params.get("window", DEFAULT_WINDOW))
        if board is None:
            raise Http404
        told = msgspec.to_builtins(board, builtin_types=(datetime,))
        return Response(told | {"computed_at": board.computed_at.isoformat()})


class PriceListView(PublicView):
    @extend_schema(
        parameters=[OpenApiParameter("sku", OpenApiTypes.STR, required=True)],
        responses=described.answer(PriceListAnswer),
    )
    def get(self, request: Request) -> Response:
        """Every price version of one offer, in dollars per million tokens, oldest first."""
        versions = prices.history(request.query_params.get("sku", ""))
        if not versions:
            raise Http404
        told: PriceListAnswer = {
            "sku": versions[0].sku.code,
            "versions": [_version(version) for version in versions],
        }
        return Response(told)


def _version(version: PriceVersion) -> VersionAnswer:
    during, window = version.during, Window(version.from_minute, version.to_minute)
    rates = {name.removesuffix("_pico"): getattr(version, name) for name in RATE_FIELDS}
    return {
        "version": version.pk,
        "service_tier": ServiceTier(version.service_tier).word,
        "context_over": version.context_over,
        "hours_utc": None if window.is_all_day else str(window).removesuffix(" UTC"),
        "valid_from": during.lower.isoformat(),
        "valid_to": during.upper.isoformat() if during.upper else None,
        "source": version.source,
        "usd_per_million": {name: usd_per_million_text(rate) for name, rate in rates.items()},
    }


class PriceHistoryAnswer(TypedDict):
    model: str
    series: list[Series]


class PriceHistoryView(PublicView):
    @extend_schema(responses=described.answer(PriceHistoryAnswer))
    def get(self, request: Request, model: str) -> Response:
        """The list price of output of every offer over a year, in steps."""
        series = leaderboards.price_history(model, timezone.now() - HISTORY_OVER)
        return Response({"model": model, "series": [asdict(one) for one in series]})
