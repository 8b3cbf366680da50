"""Long lists in pages: newest first, the next page by an opaque cursor in a `Link` header."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from django.db.models import Model, QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

Row = TypeVar("Row", bound=Model)
LIMIT_MAX = 200


class PageSerializer(serializers.Serializer[Any]):
    cursor = serializers.IntegerField(
        min_value=1,
        max_value=2**63 - 1,
        required=False,
        help_text="From the `Link` header of the page before.",
    )
    limit = serializers.IntegerField(min_value=1, max_value=LIMIT_MAX, default=50)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    rows: list[Row]
    links: dict[str, str] | None

    def answer(self, data: Any) -> Response:
        """The list as it is, and where the next page is."""
        return Response(data, headers=self.links)


def link_to(request: Request, **place: object) -> dict[str, str]:
    """The header that names the next page: the same question, from another place on."""
    query = urlencode(request.query_params.dict() | place)
    return {"Link": f'<{request.build_absolute_uri(f"{request.path}?{query}")}>; rel="next"'}


def read(request: Request, found: QuerySet[Row]) -> Page[Row]:
    """One page of rows that the caller may see. What is added meanwhile shifts nothing."""
    stated = PageSerializer(data=request.query_params.dict())
    stated.is_valid(raise_exception=True)
    cursor, limit = stated.validated_data.get("cursor"), stated.validated_data["limit"]
    if cursor is not None:
        found = found.filter(pk__lt=cursor)
    rows = list(found.order_by("-pk")[: limit + 1])
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], link_to(request, cursor=rows[limit - 1].pk, limit=limit))
