"""Second price sources in the admin console: added, switched off, read now."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from billing.admin.audited import AuditedAdmin
from billing.admin.base_admin import ServiceAdmin
from billing.prices import second_source as price_check
from gateway import price_sources
from providers.models import PriceSource
from providers.outbound.egress import EgressRefused

# Each is waited for; the rest are read by the clock.
READ_NOW_MAX = 3


class PriceSourceForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = PriceSource
        fields = ("name", "url", "provider", "is_on", "is_private")
        labels = {
            "provider": "Whose list it is",
            "is_on": "Read every day",
            "is_private": "A source of ours",
        }
        help_texts = {
            "url": "Answers with OpenRouter's /models list or LiteLLM's price map, as JSON.",
            "is_private": "May be read by http, and on addresses that are not public.",
        }

    def clean(self) -> None:
        super().clean()
        stated = self.cleaned_data
        try:
            price_sources.check_address(
                stated.get("url", ""), is_private=stated.get("is_private", False)
            )
        except EgressRefused as refused:
            raise ValidationError({"url": f"{refused}"}) from None


class PriceSourceAdmin(AuditedAdmin, ServiceAdmin):  # type: ignore[misc]
    form = PriceSourceForm
    list_display = ("name", "url", "provider", "is_on", "read_at", "tried_at", "outcome")
    list_filter = ("is_on",)
    ordering = ("name",)
    actions = ("read_now",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not obj.is_on:
            price_check.forget(source=price_sources.label(obj), now=timezone.now())

    def has_read_now_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("providers.change_pricesource")

    @admin.action(description="Read and compare now", permissions=["read_now"])
    def read_now(self, request: HttpRequest, chosen: QuerySet[PriceSource]) -> None:
        for source in chosen.order_by("pk")[:READ_NOW_MAX]:
            price_sources.read(source, now=timezone.now())
            self.message_user(request, f"{source}: {source.outcome}")
