"""Sellers in the admin console: catalogue, offers and their state, credentials, workers."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from billing.admin.audited import AuditedAdmin
from billing.admin.base_admin import AsksOnce, ReadOnlyAdmin, ServiceAdmin, own_page
from billing.admin.units import dollars
from billing.models import ProviderBill
from billing.operations import recount
from billing.prices import list_prices as price_queries
from billing.rates import PPM_PER_PERCENT
from providers.bill_admin import ProviderBillAdmin
from providers.machines import workers
from providers.market import credentials, offers
from providers.models import Credential, Model, Offer, Provider, Worker, WorkerKey


class CatalogueAdmin(AuditedAdmin, AsksOnce):  # type: ignore[misc]
    """What is routed by: a change reaches every data plane process within a second."""


@admin.register(Provider)
class ProviderAdmin(CatalogueAdmin):
    list_display = ("name", "slug", "kind", "wire", "enabled", "can_be_called", "running")
    readonly_fields = ("check_url", "load")
    list_filter = ("kind", "wire", "enabled")
    search_fields = ("name", "slug")
    ordering = ("name",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and {"base_url", "wire"} & set(form.changed_data):
            credentials.clear_marks(provider_id=obj.pk)

    def has_delete_permission(self, request: HttpRequest, obj: Provider | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        own = path("drift/", self.admin_site.admin_view(self.drift), name="providers_drift")
        return [own, *super().get_urls()]

    def drift(self, request: HttpRequest) -> HttpResponse:
        """Reported tokens against recounted ones; our own workers' counts are the measure."""
        trusted = Provider.objects.filter(kind=Provider.Kind.IN_HOUSE)
        found = recount.drifts(
            trusted=set(trusted.values_list("slug", flat=True)), now=timezone.now()
        )
        return own_page(
            self,
            request,
            "admin/drift.html",
            title="Token drift",
            rows=[(row, row.drift_ppm / PPM_PER_PERCENT) for row in found],
            events_max=recount.EVENTS_MAX,
            requests_least=recount.REQUESTS_LEAST,
        )

    def ask_once(self, rows: Sequence[Any]) -> None:
        known = credentials.active()
        for provider in rows:
            provider.credential = known.get(provider.pk)

    @admin.display(description="Credential", boolean=True)
    def can_be_called(self, provider: Any) -> bool:
        if provider.kind == Provider.Kind.IN_HOUSE:
            return True
        return provider.credential is not None and not provider.credential.dead_reason

    @admin.display(description="Running / waiting")
    def running(self, provider: Provider) -> str:
        if "running" not in provider.load:
            return "–"
        return f"{provider.load['running']} / {provider.load.get('waiting', '–')}"


@admin.register(Model)
class ModelAdminPage(CatalogueAdmin):
    list_display = ("slug", "name", "creator", "context_length")
    list_filter = ("creator",)
    search_fields = ("slug", "name")
    ordering = ("slug",)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Offer)
class OfferAdmin(CatalogueAdmin):
    nothing_yet = "No offer yet. A provider gets them from its list of models."
    list_display = ("sku", "model", "verdict", "called", "state_changed_at")
    list_filter = ("state", "provider__kind", "provider")
    search_fields = ("sku", "model__slug")
    list_select_related = ("provider", "model")
    actions = ("switch_off", "switch_on")
    readonly_fields = ("sku", "provider", "model", "variant", "state", "state_reason")
    exclude = ("state_changed_at",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Offer | None = None) -> bool:
        return False

    def ask_once(self, rows: Sequence[Any]) -> None:
        """Why each cannot be called; empty where it can."""
        priced = price_queries.in_force(timezone.now(), [offer.sku for offer in rows])
        refusals = offers.refusals(list(rows), priced=priced)
        for offer in rows:
            offer.refusal = refusals[offer.pk]

    @display(description="Can be called", label={"yes": "success", "no": "warning"})
    def called(self, offer: Offer) -> tuple[str, str]:
        refusal = getattr(offer, "refusal", "")
        return ("no", refusal) if refusal else ("yes", "yes")

    @display(
        description="State",
        label={
            Offer.State.LIVE: "success",
            Offer.State.DEMOTED: "warning",
            Offer.State.REMOVED: "danger",
            Offer.State.DISABLED: "",
        },
    )
    def verdict(self, offer: Offer) -> str:
        return offer.state

    @admin.action(description="Switch off: list no more, route no more")
    def switch_off(self, request: HttpRequest, chosen: QuerySet[Offer]) -> None:
        self._switch(request, chosen, enabled=False)

    @admin.action(description="Switch on")
    def switch_on(self, request: HttpRequest, chosen: QuerySet[Offer]) -> None:
        self._switch(request, chosen, enabled=True)

    def _switch(self, request: HttpRequest, chosen: QuerySet[Offer], *, enabled: bool) -> None:
        actor = request.user.get_username()
        for offer in chosen:
            offers.set_enabled(offer=offer, enabled=enabled, actor=actor, now=timezone.now())
        self.message_user(
            request, f"{len(chosen)} offers are {'live' if enabled else 'disabled'} now."
        )


class CredentialForm(forms.ModelForm):  # type: ignore[type-arg]
    secret = forms.CharField(
        max_length=credentials.SECRET_LENGTH_MAX,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="Write only: kept encrypted and never shown again. Replaces the active one.",
    )

    class Meta:
        model = Credential
        fields = ("provider", "label")


@admin.register(Credential)
class CredentialAdmin(AuditedAdmin, ServiceAdmin):  # type: ignore[misc]
    form = CredentialForm
    refusals = (ValueError,)
    list_display = (
        "provider",
        "label",
        "ending",
        "active",
        "dead_reason",
        "doubted_at",
        "created_at",
    )
    list_filter = ("active", "provider")
    list_select_related = ("provider",)
    autocomplete_fields = ("provider",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("providers.delete_credential")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = credentials.store(
            provider=obj.provider, label=obj.label, secret=form.cleaned_data["secret"]
        )
        self.take_over(obj, made)

    @admin.display(description="Ends in")
    def ending(self, credential: Credential) -> str:
        return f"…{credential.last_four}"


class WorkerKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    models_allowed = forms.CharField(
        label="Models",
        required=False,
        max_length=4_000,
        widget=UnfoldAdminTextInputWidget,
        help_text="What its workers may sell, separated by commas. Empty allows any model.",
    )

    class Meta:
        model = WorkerKey
        fields = ("label", "allowed_network")

    def clean_models_allowed(self) -> list[str]:
        named = self.cleaned_data["models_allowed"].split(",")
        return [name.strip() for name in named if name.strip()]


@admin.register(WorkerKey)
class WorkerKeyAdmin(ServiceAdmin):
    """Making a key shows the line that joins another machine, once."""

    refusals = (ValueError,)
    form = WorkerKeyForm
    list_display = ("label", "public_id", "allowed_network", "sells", "created_at", "revoked_at")
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made, plain = workers.issue_key(
            label=obj.label,
            allowed_network=obj.allowed_network,
            models_allowed=form.cleaned_data["models_allowed"],
            created_by=request.user.get_username(),
            now=timezone.now(),
        )
        self.take_over(obj, made)
        request.META["tokenhouse.plain"] = plain

    def response_add(
        self, request: HttpRequest, obj: WorkerKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        plain = request.META["tokenhouse.plain"]
        return self.show_once(
            request,
            title=f"Worker key {obj.label}",
            secret=workers.join_line(console_url=settings.PUBLIC_CONSOLE_URL, plain_key=plain),
            hint="Run this in a clone of the project on the machine that joins, with its own name "
            f"and $/hour. The key works from {obj.allowed_network} only.",
        )

    @admin.display(description="May sell")
    def sells(self, key: WorkerKey) -> str:
        return ", ".join(key.models_allowed) or "any model"

    @admin.action(description="Revoke: no more registrations or heartbeats")
    def revoke(self, request: HttpRequest, chosen: QuerySet[WorkerKey]) -> None:
        for key in chosen:
            workers.revoke_key(key=key, actor=request.user.get_username(), now=timezone.now())
        self.message_user(request, f"{len(chosen)} worker keys are revoked.")


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    nothing_yet = "No machine has joined. Make a worker key, and start a worker with it."
    list_display = ("name", "offer", "base_url", "hourly", "heartbeat_at", "checked_at", "running")
    list_select_related = ("offer",)
    exclude = ("bearer_ciphertext",)
    ordering = ("name",)

    @admin.display(description="$/hour", ordering="usd_per_hour_pico")
    def hourly(self, worker: Worker) -> str:
        return f"{dollars(worker.usd_per_hour_pico)} ({worker.usd_per_hour_source})"

    @admin.display(description="Running / waiting")
    def running(self, worker: Worker) -> str:
        return f"{worker.load.get('running', 0)} / {worker.load.get('waiting', 0)}"


admin.site.register(ProviderBill, ProviderBillAdmin)
