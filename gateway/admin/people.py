"""People and keys in the admin console: teams, members, users, API keys, policies, refusals."""

from collections.abc import Iterable, Sequence
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from redis.exceptions import RedisError
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldBooleanSwitchWidget

from billing.admin.audited import AuditedAdmin
from billing.admin.base_admin import (
    AsksOnce,
    Growing,
    HistoryAdmin,
    ReadOnlyAdmin,
    ServiceAdmin,
    occurring,
)
from billing.admin.limits import QuotaAdmin, RateLimitAdmin
from billing.models import (
    AuditEntry,
    Quota,
    RateLimit,
    ScopeKind,
)
from gateway import kinds
from gateway.admin.audit import AuditEntryAdmin
from gateway.admin.price_sources import PriceSourceAdmin
from gateway.admin.sellers import SellerAdmin
from gateway.console.forms import pico_per_token_of, usd_per_million_of
from gateway.models import (
    ApiKey,
    GroupMapping,
    Identity,
    Member,
    Refusal,
    RoutingPolicy,
    Seller,
    Team,
)
from gateway.tenants import keys, policies
from providers.models import PriceSource

admin.site.index_title = "Overview"
admin.site.unregister(Group)
admin.site.unregister(User)
# Second factors are set up by their owners, and reset at the machine.
admin.site.unregister(Authenticator)
admin.site.unregister(EmailAddress)
admin.site.register(Seller, SellerAdmin)
admin.site.register(PriceSource, PriceSourceAdmin)
admin.site.register(AuditEntry, AuditEntryAdmin)


class NamesItsScope(AsksOnce):
    """Billing knows teams and keys by number only; people know them by name."""

    @display(description="Applies to", ordering="scope_id")
    def applies_to(self, limit: Any) -> str:
        kind = limit.get_scope_kind_display()
        if limit.scope_kind == ScopeKind.TENANT:
            return f"All of {limit.tenant.name}"
        if limit.scope_kind == ScopeKind.SESSION:
            return "Each session"
        named = (limit.scope_kind, limit.tenant_id, str(limit.scope_id))
        return f"{kind} {limit.names.get(named, limit.scope_id)}"

    def ask_once(self, rows: Sequence[Any]) -> None:
        names = {
            (kind, tenant_id, str(pk)): name
            for kind, model in ((ScopeKind.TEAM, Team), (ScopeKind.KEY, ApiKey))
            for pk, tenant_id, name in _named(model, kind, rows)
        }
        for limit in rows:
            limit.names = names


def _named(
    model: type[Team | ApiKey], kind: ScopeKind, limits: Iterable[Any]
) -> Iterable[tuple[int, int, str]]:
    ids = [limit.scope_id for limit in limits if limit.scope_kind == kind]
    return model.objects.filter(pk__in=ids).values_list("pk", "tenant_id", "name")


@admin.register(Quota)
class NamedQuotaAdmin(NamesItsScope, QuotaAdmin):  # type: ignore[misc]
    """See NamesItsScope."""

    list_display = ("tenant", "applies_to", "window", "limit", "raised", "shadow")


@admin.register(RateLimit)
class NamedRateLimitAdmin(NamesItsScope, RateLimitAdmin):  # type: ignore[misc]
    """See NamesItsScope."""

    list_display = ("tenant", "applies_to", "rpm", "tpm", "concurrency")


@admin.register(User)
class UserAdmin(AuditedAdmin, DjangoUserAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_staff", "is_active", "last_login")

    @transaction.atomic
    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """In one transaction with its audit entry."""
        return super().user_change_password(request, id, form_url)


@admin.register(Team)
class TeamAdmin(AuditedAdmin):
    list_display = ("name", "tenant", "slug", "cost_centre")
    list_filter = ("tenant",)
    search_fields = ("name", "slug", "cost_centre")


@admin.register(Member)
class MemberAdmin(AuditedAdmin):
    list_display = ("user", "tenant", "team", "role")
    list_filter = ("tenant", "role")
    list_select_related = ("user", "tenant", "team")


@admin.register(GroupMapping)
class GroupMappingAdmin(AuditedAdmin):
    """Takes effect at a person's next sign-in."""

    list_display = ("group", "tenant", "team", "role")
    list_filter = ("tenant", "role")
    search_fields = ("group",)
    list_select_related = ("tenant", "team")


@admin.register(Identity)
class IdentityAdmin(ReadOnlyAdmin):
    nothing_yet = "Nobody has signed in by single sign-on yet."
    list_display = ("user", "issuer", "subject")
    search_fields = ("user__username", "subject")
    list_select_related = ("user",)


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    for_operators = forms.BooleanField(
        label="For the operators' API",
        required=False,
        help_text="Reads every seller's statement and records payouts; calls no model. "
        "Keep it with the house's own tenant.",
        widget=UnfoldBooleanSwitchWidget,
    )

    class Meta:
        model = ApiKey
        fields = ("tenant", "team", "name", "expires_at")


@admin.register(ApiKey)
class ApiKeyAdmin(Growing, ServiceAdmin):  # type: ignore[misc]
    form = ApiKeyForm
    refusals = (keys.KeyRefused,)
    list_display = ("name", "public_id", "tenant", "team", "state", "expires_at", "created_at")
    list_filter = ("tenant",)
    search_fields = ("name", "public_id")
    named_by = ("public_id",)
    list_select_related = ("tenant", "team")
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        terms = {
            "tenant": obj.tenant,
            "name": obj.name,
            "created_by": request.user.get_username(),
            "now": timezone.now(),
            "expires_at": obj.expires_at,
        }
        if not form.cleaned_data["for_operators"]:
            issued = keys.issue(team=obj.team, **terms)
        elif obj.team is None and request.user.has_perm("billing.add_payout"):
            issued = keys.issue_for_operators(**terms)
        else:
            raise keys.KeyRefused("an operators' key has no team, and its maker may pay sellers")
        self.take_over(obj, issued.key)
        request.META["tokenhouse.plain"] = issued.plain

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self.show_once(
            request,
            title=f"API key {obj.name}",
            secret=request.META["tokenhouse.plain"],
            hint="It pays sellers: keep it as you keep the bank's."
            if kinds.OPERATOR in obj.scopes
            else f"It spends the credit of {obj.tenant}.",
        )

    @admin.action(description="Revoke at once and for good")
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        try:
            for key in chosen:
                keys.revoke(key=key, actor=request.user.get_username(), now=timezone.now())
        except RedisError:
            self.message_user(request, "Redis does not answer; not all were revoked.", "error")
        else:
            self.message_user(request, f"{len(chosen)} keys are revoked.")

    @display(description="State", label={"live": "success", "expired": "warning", "revoked": ""})
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return "revoked"
        return "live" if keys.is_live(key, timezone.now()) else "expired"


def _ceiling(label: str) -> forms.DecimalField:
    """Six places of a dollar per million tokens are whole pico-dollars per token."""
    return forms.DecimalField(
        label=label,
        required=False,
        min_value=0,
        max_value=100_000,
        decimal_places=6,
        max_digits=11,
        widget=UnfoldAdminDecimalFieldWidget,
    )


class RoutingPolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    max_input = _ceiling("Dearest input, $ per million tokens")
    max_output = _ceiling("Dearest output, $ per million tokens")

    class Meta:
        model = RoutingPolicy
        exclude = ("max_input_pico", "max_output_pico")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("max_input", "max_output"):
            self.initial[name] = usd_per_million_of(getattr(self.instance, f"{name}_pico"))

    def ceiling_pico(self, name: str) -> int | None:
        return pico_per_token_of(self.cleaned_data[name])


@admin.register(RoutingPolicy)
class RoutingPolicyAdmin(ServiceAdmin):
    form = RoutingPolicyForm
    refusals = (policies.PolicyRefused,)
    list_display = ("tenant", "team", "kind", "allow_fallbacks", "changed_at")
    list_filter = ("kind", "tenant")
    list_select_related = ("tenant", "team")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = policies.set_policy(
            tenant=obj.tenant,
            team=obj.team,
            actor=request.user.get_username(),
            now=timezone.now(),
            kind=obj.kind,
            pinned_skus=obj.pinned_skus,
            providers_allowed=obj.providers_allowed,
            max_input_pico=form.ceiling_pico("max_input"),
            max_output_pico=form.ceiling_pico("max_output"),
            allow_fallbacks=obj.allow_fallbacks,
        )
        self.take_over(obj, made)


@admin.register(Refusal)
class RefusalAdmin(HistoryAdmin):
    nothing_yet = "No request was refused."
    list_display = ("occurred_at", "tenant", "model", "status", "code", "message")
    list_filter = (occurring("status"), occurring("code"), "tenant")
    search_fields = ("request_id",)
    search_help_text = "The id of a request, or its beginning"
    id_column = "request_id"
    list_select_related = ("tenant",)
