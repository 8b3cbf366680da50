"""The forms of the dashboard. They read what people typed; services decide whether it may be."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.forms.renderers import BaseRenderer
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from billing.kinds import Window
from billing.limits.quotas import Cap
from billing.money import pico_from_usd
from gateway import kinds
from gateway.models import Member, Team
from gateway.routing.policies import PolicyKind
from gateway.tenants import roles

EXPIRIES: Final = (("", "Never"), ("7", "In 7 days"), ("30", "In 30 days"), ("90", "In 90 days"))
LIMIT_USD_MAX: Final = Decimal(4_000_000)


class LongSelect(forms.Select):
    """Many choices, written at once: Django renders two templates for each."""

    def render(
        self,
        name: str,
        value: Any,
        attrs: dict[str, Any] | None = None,
        renderer: BaseRenderer | None = None,
    ) -> SafeString:
        shown = self.get_context(name, value, attrs)["widget"]
        options = format_html_join(
            "\n",
            '<option value="{}"{}>{}</option>',
            (
                (
                    option["value"],
                    mark_safe(" selected") if option["selected"] else "",
                    option["label"],
                )
                for _, group, _ in shown["optgroups"]
                for option in group
            ),
        )
        return format_html(
            '<select name="{}"{}>{}</select>', shown["name"], flatatt(shown["attrs"]), options
        )


class PlainForm(forms.Form):
    """Without Django's colon after each label."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""


class KeyForm(PlainForm):
    name = forms.CharField(
        max_length=80, help_text="What the key is for: “nightly evals”, “web app”."
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in kinds.SCOPES],
        initial=[kinds.INFERENCE],
        widget=forms.CheckboxSelectMultiple,
        help_text="inference calls models; management uses the management API.",
    )
    expires = forms.ChoiceField(choices=EXPIRIES, required=False)
    team = forms.ModelChoiceField(
        Team.objects.none(), required=False, empty_label="No team", widget=LongSelect
    )
    models_allowed = forms.CharField(
        required=False,
        label="Models",
        max_length=8_000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One per line. Empty allows every model.",
    )

    def __init__(self, *args: Any, member: Member, **kwargs: Any) -> None:
        """Offers what `gateway.tenants.roles` lets this member make: a key beyond a developer's own
        team would lead out of its budget."""
        super().__init__(*args, **kwargs)
        team, scopes = self.fields["team"], self.fields["scopes"]
        assert isinstance(team, forms.ModelChoiceField)
        assert isinstance(scopes, forms.MultipleChoiceField)
        team.queryset = Team.objects.filter(tenant=member.tenant).order_by("name")
        if not roles.reaches_all_teams(member):
            scopes.choices = [(kinds.INFERENCE, kinds.INFERENCE)]
            scopes.help_text = "Managers also make keys for the management API."
            team.queryset = team.queryset.filter(pk__in=[member.team_id])
            if member.team_id is not None:
                team.required, team.empty_label = True, None

    def expires_at(self, now: datetime) -> datetime | None:
        days = self.cleaned_data["expires"]
        return now + timedelta(days=int(days)) if days else None

    def models_named(self) -> list[str]:
        return [
            line.strip()
            for line in self.cleaned_data["models_allowed"].splitlines()
            if line.strip()
        ]


class ScopeForm(PlainForm):
    """Something a limit applies to: the whole tenant, a team or a key of it, for budgets also
    its spending on a model or at a provider, and each of its sessions."""

    scope = forms.ChoiceField(label="Applies to", widget=LongSelect)

    def __init__(self, *args: Any, scopes: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["scope"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = scopes

    def scope_chosen(self) -> tuple[str, str]:
        kind, _, scope_id = self.cleaned_data["scope"].partition(":")
        return kind, scope_id


class QuotaForm(ScopeForm):
    name = forms.CharField(
        label="Model or provider",
        required=False,
        max_length=200,
        help_text="Its name on the board, where the budget is for one model or provider.",
    )
    window = forms.ChoiceField(choices=[(window.value, window.span) for window in Window])
    limit_usd = forms.DecimalField(
        label="Limit, $",
        min_value=0,
        max_value=LIMIT_USD_MAX,
        max_digits=19,
        decimal_places=12,
        help_text="A call that could pass it is refused.",
    )
    shadow = forms.BooleanField(
        required=False, label="Only watch: refuse nothing, list what would have been refused"
    )

    def clean(self) -> None:
        super().clean()
        stated = self.cleaned_data
        if stated.get("scope", "").endswith(":") and not stated.get("name"):
            self.add_error("name", "Say which model or provider.")

    def cap(self) -> Cap:
        kind, scope_id = self.scope_chosen()
        return Cap(
            scope_kind=kind,
            scope_id=scope_id or self.cleaned_data["name"],
            window=self.cleaned_data["window"],
            limit_pico=pico_from_usd(self.cleaned_data["limit_usd"]),
            shadow=self.cleaned_data["shadow"],
        )


class RaiseForm(PlainForm):
    limit_usd = forms.DecimalField(
        label="Raise to, $",
        min_value=0,
        max_value=LIMIT_USD_MAX,
        max_digits=19,
        decimal_places=12,
    )
    days = forms.IntegerField(label="For how many days", min_value=1, max_value=366)
    reason = forms.CharField(max_length=400, required=False, label="Why")

    def limit_pico(self) -> int:
        return pico_from_usd(self.cleaned_data["limit_usd"])

    def until(self, now: datetime) -> datetime:
        return now + timedelta(days=self.cleaned_data["days"])


class ChannelForm(PlainForm):
    kind = forms.ChoiceField(
        label="By", choices=[("mail", "mail to"), ("webhook", "a signed webhook to")]
    )
    target = forms.CharField(
        label="Address", max_length=300, help_text="A mail address, or an https URL."
    )


class LowCreditForm(PlainForm):
    below_usd = forms.DecimalField(
        label="When less is left than, $",
        required=False,
        min_value=0,
        max_value=1_000_000,
        max_digits=19,
        decimal_places=12,
        help_text="Empty tells nobody.",
    )

    def below_pico(self) -> int | None:
        below = self.cleaned_data["below_usd"]
        return pico_from_usd(below) if below else None


class RateLimitForm(ScopeForm):
    rpm = forms.IntegerField(
        label="Requests per minute", required=False, min_value=1, max_value=10_000_000
    )
    tpm = forms.IntegerField(
        label="Tokens per minute", required=False, min_value=1, max_value=2_000_000_000
    )
    concurrency = forms.IntegerField(
        label="Open at once", required=False, min_value=1, max_value=100_000
    )


class PolicyForm(PlainForm):
    kind = forms.ChoiceField(choices=PolicyKind.choices(), widget=forms.RadioSelect)
    pinned_skus = forms.CharField(
        label="Pinned offers",
        required=False,
        max_length=8_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="For “pinned”: one offer per line, tried in this order.",
    )
    providers_allowed = forms.CharField(
        label="Only these sellers",
        required=False,
        max_length=2_000,
        help_text="Separated by commas. Empty allows every seller.",
    )
    max_input_usd = forms.DecimalField(
        label="Ceiling for input, $/M",
        required=False,
        min_value=0,
        max_value=100_000,
        max_digits=11,
        decimal_places=6,
    )
    max_output_usd = forms.DecimalField(
        label="Ceiling for output, $/M",
        required=False,
        min_value=0,
        max_value=100_000,
        max_digits=11,
        decimal_places=6,
    )
    allow_fallbacks = forms.BooleanField(
        label="Try the next offer if the first one fails", required=False
    )

    def skus(self) -> list[str]:
        return [
            line.strip() for line in self.cleaned_data["pinned_skus"].splitlines() if line.strip()
        ]

    def sellers(self) -> list[str]:
        named = self.cleaned_data["providers_allowed"].split(",")
        return [name.strip() for name in named if name.strip()]


def usd_per_million_of(pico_per_token: int | None) -> Decimal | None:
    return None if pico_per_token is None else Decimal(pico_per_token).scaleb(-6).normalize()


def pico_per_token_of(usd_per_million: Decimal | None) -> int | None:
    """A ceiling as typed; the field allows six places, so nothing is lost."""
    return None if usd_per_million is None else int(usd_per_million.scaleb(6))
