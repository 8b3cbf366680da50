"""The ledger in the admin console: a trial balance, statements of accounts, transfers."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import TabularInline
from unfold.decorators import display

from billing.admin.base_admin import HistoryAdmin, ReadOnlyAdmin, own_page
from billing.admin.units import dollars
from billing.books import ledger, statements
from billing.models import Account, AccountSum, Entry, Transfer

NOTHING = "—"


def debit(pico: int) -> str:
    return dollars(pico) if pico > 0 else ""


def credit(pico: int) -> str:
    return dollars(-pico) if pico < 0 else ""


def _kinds(entries: Iterable[Entry]) -> str:
    return " + ".join(dict.fromkeys(e.account.get_kind_display() for e in entries)) or NOTHING


def name_of(account: Account) -> str:
    whose = account.tenant.name if account.tenant else account.supplier
    return f"{account.get_kind_display()}, {whose}" if whose else account.get_kind_display()


class AccountAdmin(ReadOnlyAdmin):
    nothing_yet = "No account yet: the first posted request opens them."
    list_display = ("kind", "tenant", "supplier", "debited", "credited")
    list_filter = ("kind", "tenant")
    search_fields = ("tenant__name", "supplier")
    list_select_related = ("tenant",)
    list_before_template = "admin/trial_balance.html"  # type: ignore[assignment]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        sums = AccountSum.objects.filter(account=OuterRef("pk")).order_by().values("account")
        total = sums.annotate(total=Sum("amount_pico")).values("total")
        return Account.objects.annotate(sum_pico=Coalesce(Subquery(total), Decimal(0))).order_by(
            "kind", "pk"
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        context = {**(extra_context or {}), "trial": statements.trial_balance()}
        return super().changelist_view(request, context)

    @display(description="Debit", ordering="sum_pico")
    def debited(self, account: Account) -> str:
        return debit(account.sum_pico)  # type: ignore[attr-defined]

    @display(description="Credit", ordering="-sum_pico")
    def credited(self, account: Account) -> str:
        return credit(account.sum_pico)  # type: ignore[attr-defined]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The account's newest entries with the balance after each."""
        if request.method == "POST" or not self.has_view_permission(request):
            raise PermissionDenied
        account = Account.objects.select_related("tenant").filter(pk=object_id).first()
        if account is None:
            raise Http404
        return own_page(
            self,
            request,
            "admin/account_statement.html",
            title=name_of(account),
            account=account,
            meaning=statements.MEANINGS[account.kind],
            statement=statements.statement(account),
            shown_max=statements.ENTRIES_SHOWN_MAX,
        )


class EntryInline(TabularInline):
    model = Entry
    extra = 0
    fields = readonly_fields = ("name", "debited", "credited")
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        return Entry.objects.select_related("account__tenant").order_by("-amount_pico")

    @display(description="Account")
    def name(self, entry: Entry) -> str:
        return name_of(entry.account)

    @display(description="Debit")
    def debited(self, entry: Entry) -> str:
        return debit(int(entry.amount_pico))

    @display(description="Credit")
    def credited(self, entry: Entry) -> str:
        return credit(int(entry.amount_pico))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TransferAdmin(HistoryAdmin):
    nothing_yet = "Nothing is posted yet: the first request that is served makes a transfer."
    list_display = ("id", "created_at", "code", "tenant", "amount", "between", "memo", "corrects")
    list_filter = ("code", "tenant")
    search_fields = named_by = ("pk", "idempotency_key")
    search_help_text = "The number of a transfer, or its key"
    inlines = (EntryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transfer]:
        found = Transfer.objects.select_related("tenant", "corrects")
        return found.prefetch_related("entries__account")

    @display(description="Charge")
    def amount(self, transfer: Transfer) -> str:
        return dollars(ledger.charge_pico(transfer.entries.all()))

    @display(description="From credit to debit")
    def between(self, transfer: Transfer) -> str:
        """Which kinds of account it moves between, credits first."""
        entries = sorted(transfer.entries.all(), key=lambda entry: entry.pk)
        credited = _kinds(entry for entry in entries if entry.amount_pico < 0)
        debited = _kinds(entry for entry in entries if entry.amount_pico > 0)
        return f"{credited} → {debited}"


class AccountKind(SimpleListFilter):
    title = parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Account.Kind.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:
        """By the accounts themselves: a join hides from the planner how many entries each has."""
        if not self.value():
            return queryset
        accounts = Account.objects.filter(kind=self.value()).values_list("pk", flat=True)
        return queryset.filter(account__in=list(accounts))


class EntryAdmin(HistoryAdmin):
    nothing_yet = "Nothing is posted yet."
    list_display = ("id", "transfer", "name", "debited", "credited")
    list_filter = (AccountKind,)
    list_select_related = ("transfer", "account", "account__tenant")

    @display(description="Account")
    def name(self, entry: Entry) -> str:
        return name_of(entry.account)

    @display(description="Debit")
    def debited(self, entry: Entry) -> str:
        return debit(int(entry.amount_pico))

    @display(description="Credit")
    def credited(self, entry: Entry) -> str:
        return credit(int(entry.amount_pico))
