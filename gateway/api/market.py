"""What is public: the boards and the price history. No key is needed."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.http import Http404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from gateway.api.base import ApiView
from providers import leaderboards
from providers.windows import DEFAULT_WINDOW, WINDOWS

HISTORY_OVER = timedelta(days=365)
WINDOW_PARAMETER = OpenApiParameter(
    "window", OpenApiTypes.STR, enum=list(WINDOWS), default=DEFAULT_WINDOW
)


class PublicView(ApiView):
    authentication_classes = ()
    permission_classes = (AllowAny,)


class HomeBoardView(PublicView):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """The leading models. Prices are micro-dollars per million tokens (`_pico`)."""
        return Response({"models": [asdict(row) for row in leaderboards.home()]})


class BoardView(PublicView):
    @extend_schema(parameters=[WINDOW_PARAMETER], responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, model: str) -> Response:
        """One model's offers, ranked by effective price; see docs/leaderboards.md."""
        board = leaderboards.board(model, request.query_params.get("window", DEFAULT_WINDOW))
        if board is None:
            raise Http404
        return Response(asdict(board) | {"computed_at": board.computed_at.isoformat()})


class PriceHistoryView(PublicView):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, model: str) -> Response:
        """The list price of output of every offer over a year, in steps."""
        series = leaderboards.price_history(model, timezone.now() - HISTORY_OVER)
        return Response({"model": model, "series": [_series(one) for one in series]})


def _series(one: Any) -> Mapping[str, Any]:
    return asdict(one)
