"""The operators' API: what sellers earned and are owed, and payouts to them."""

from datetime import date, datetime
from typing import Any, TypedDict

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing.books import earnings, payouts
from billing.books.earnings import Earning
from billing.models import Payout
from billing.money import PICO_PER_CENT
from gateway import months
from gateway.api import pagination
from gateway.api.base import OperatorView
from gateway.api.idempotency import KEY_HEADER, idempotent
from gateway.api.shapes.money_fields import UsdField
from gateway.models import Seller

PROVIDER_LENGTH_MAX = 80


class SellerSerializer(serializers.Serializer[Any]):
    seller = serializers.CharField(source="provider.slug", help_text="The provider's name.")
    tenant = serializers.CharField(source="team.tenant.slug")
    team = serializers.CharField(source="team.slug")
    house_share_ppm = serializers.IntegerField()
    owed_usd = serializers.SerializerMethodField(
        help_text="Earned and not paid; what expired requests may still be billed is left out."
    )

    def get_owed_usd(self, seller: Seller) -> str:
        return UsdField().to_representation(payouts.owed_pico(seller.provider.slug))


class PayoutSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(read_only=True, source="pk")
    seller = serializers.CharField(source="supplier", max_length=PROVIDER_LENGTH_MAX)
    amount_usd = UsdField(source="amount_pico", help_text="Whole cents.")
    reference = serializers.CharField(
        max_length=payouts.REFERENCE_LENGTH_MAX,
        help_text="The bank's own. With the same facts again: the booking that there is.",
    )
    paid_on = serializers.DateField()
    created_by = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)

    def validate_amount_usd(self, pico: int) -> int:
        if pico % PICO_PER_CENT:
            raise serializers.ValidationError("A bank sends whole cents.")
        return pico


class NewPayout(TypedDict):
    """A payout as it is asked for."""

    supplier: str
    amount_pico: int
    reference: str
    paid_on: date


class PayoutFacts(NewPayout):
    pk: int
    created_by: str
    created_at: datetime


class PayoutPageSerializer(pagination.PageSerializer):
    seller = serializers.CharField(max_length=PROVIDER_LENGTH_MAX, required=False)


class EarningSerializer(serializers.Serializer[Any]):
    day = serializers.DateField()
    sku = serializers.CharField()
    requests = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    buyers_paid_usd = UsdField(source="paid_pico")
    seller_credit_usd = UsdField(source="credit_pico")
    house_usd = UsdField(source="house_pico")


class StatementSerializer(serializers.Serializer[Any]):
    seller = serializers.CharField()
    month = serializers.CharField()
    rows = EarningSerializer(many=True)
    payouts = PayoutSerializer(many=True)
    seller_credit_usd = UsdField(source="credit_pico")
    paid_out_usd = UsdField(source="paid_out_pico")
    owed_usd = UsdField(source="owed_pico", help_text="Now, not at the month's end.")


class StatementFacts(TypedDict):
    seller: str
    month: str
    rows: list[Earning]
    payouts: list[PayoutFacts]
    credit_pico: int
    paid_out_pico: int
    owed_pico: int


class MonthSerializer(serializers.Serializer[Any]):
    month = serializers.CharField(
        max_length=7,
        default="",
        allow_blank=True,
        help_text="As 2026-03; without it, this month.",
    )

    def validate_month(self, text: str) -> months.Month:
        try:
            return months.named(text, now=timezone.now())
        except months.NoSuchMonth as problem:
            raise serializers.ValidationError(str(problem)) from problem


class SellerListView(OperatorView):
    @extend_schema(responses=SellerSerializer(many=True), parameters=[pagination.PageSerializer])
    def get(self, request: Request) -> Response:
        """Every seller, with what it is owed. For operators of the house."""
        page = pagination.read(request, Seller.objects.select_related("team__tenant", "provider"))
        return page.answer(SellerSerializer(page.rows, many=True).data)


class SellerStatementView(OperatorView):
    @extend_schema(responses=StatementSerializer, parameters=[MonthSerializer])
    def get(self, request: Request, seller: str) -> Response:
        """A seller's month: earnings per offer and day, and the payouts. For operators."""
        stated = MonthSerializer(data={"month": request.query_params.get("month", "")})
        stated.is_valid(raise_exception=True)
        month: months.Month = stated.validated_data["month"]
        slug = _seller(seller).provider.slug
        rows = earnings.by_day(slug, since=month.begins_at, until=month.following.begins_at)
        sent = payouts.between(slug, since=month.first, until=month.following.first)
        facts: StatementFacts = {
            "seller": slug,
            "month": str(month),
            "rows": rows,
            "payouts": [_stated(payout) for payout in sent],
            "credit_pico": sum(row.credit_pico for row in rows),
            "paid_out_pico": sum(payout.amount_cents for payout in sent) * PICO_PER_CENT,
            "owed_pico": payouts.owed_pico(slug),
        }
        return Response(StatementSerializer(facts).data)


class PayoutListView(OperatorView):
    @extend_schema(responses=PayoutSerializer(many=True), parameters=[PayoutPageSerializer])
    def get(self, request: Request) -> Response:
        """Payouts, newest first; with `seller` those to one. For operators of the house."""
        stated = PayoutPageSerializer(data=request.query_params.dict())
        stated.is_valid(raise_exception=True)
        found = Payout.objects.all()
        if "seller" in stated.validated_data:
            found = found.filter(supplier=stated.validated_data["seller"])
        page = pagination.read(request, found)
        return page.answer([PayoutSerializer(_stated(payout)).data for payout in page.rows])

    @extend_schema(
        request=PayoutSerializer, responses={201: PayoutSerializer}, parameters=[KEY_HEADER]
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Record money that was sent: never more than is owed. For operators of the house."""
        body = PayoutSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        stated: NewPayout = body.validated_data
        made = payouts.record(
            supplier=_seller(stated["supplier"]).provider.slug,
            amount_cents=stated["amount_pico"] // PICO_PER_CENT,
            reference=stated["reference"],
            paid_on=stated["paid_on"],
            actor=self.access.caller,
            now=timezone.now(),
        )
        return Response(PayoutSerializer(_stated(made)).data, status=status.HTTP_201_CREATED)


def _seller(slug: str) -> Seller:
    found = Seller.objects.select_related("provider").filter(provider__slug=slug).first()
    if found is None:
        raise Http404
    return found


def _stated(payout: Payout) -> PayoutFacts:
    return {
        "pk": payout.pk,
        "supplier": payout.supplier,
        "amount_pico": payout.amount_cents * PICO_PER_CENT,
        "reference": payout.reference,
        "paid_on": payout.paid_on,
        "created_by": payout.created_by,
        "created_at": payout.created_at,
    }
