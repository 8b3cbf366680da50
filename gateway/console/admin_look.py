"""How the admin console looks and is ordered; its colours come from tokens.css by admin.css.

Settings import this, so it knows no models.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, TypedDict

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.functional import Promise

Link: TypeAlias = str | Promise | Callable[[HttpRequest], str]


class Item(TypedDict):
    """A page of the admin console in its sidebar."""

    title: str
    icon: str
    link: Link


class Group(TypedDict):
    title: str
    separator: bool
    items: list[Item]


def _item(title: str, icon: str, model: str, query: str = "") -> Item:
    link = reverse_lazy(f"admin:{model}_changelist")
    return {"title": title, "icon": icon, "link": (lambda _: f"{link}{query}") if query else link}


def _group(title: str, *items: Item) -> Group:
    return {"title": title, "separator": True, "items": list(items)}


UNFOLD: Final[dict[str, object]] = {
    "SITE_TITLE": "Tokenhouse admin",
    "SITE_HEADER": "Tokenhouse",
    "SITE_SUBHEADER": "Admin console",
    "SITE_URL": "/overview/",
    "SITE_ICON": lambda request: static("img/mark.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("img/mark.svg")}
    ],
    "SHOW_HISTORY": False,
    "BORDER_RADIUS": "5px",
    "STYLES": [
        lambda request: static("css/tokens.css"),
        lambda request: static("css/fonts.css"),
        lambda request: static("css/admin.css"),
    ],
    "SCRIPTS": [lambda request: static("js/admin-theme.js")],
    "DASHBOARD_CALLBACK": "gateway.console.admin_dashboard.dashboard",
    "SIDEBAR": {
        "show_search": True,
        "navigation": [
            {
                "items": [
                    {"title": "Overview", "icon": "home", "link": reverse_lazy("admin:index")},
                    _item("Tenants", "apartment", "billing_tenant"),
                    _item("Credit grants", "payments", "billing_creditgrant"),
                ]
            },
            _group(
                "Access",
                _item("API keys", "key", "gateway_apikey"),
                _item("Members", "group", "gateway_member"),
                _item("Groups of the sign-on", "assignment_ind", "gateway_groupmapping"),
                _item("Identities", "badge", "gateway_identity"),
                _item("Teams", "groups", "gateway_team"),
                _item("Users", "person", "auth_user"),
            ),
            _group(
                "Market",
                _item("Offers", "sell", "providers_offer"),
                _item("Sellers", "point_of_sale", "gateway_seller"),
                _item("Providers", "storefront", "providers_provider"),
                _item("Models", "deployed_code", "providers_model"),
                _item("Credentials", "lock", "providers_credential"),
                _item("Prices", "price_change", "billing_priceversion"),
                _item("Price proposals", "rule", "billing_priceproposal", "?state__exact=pending"),
                _item("Price sources", "travel_explore", "providers_pricesource"),
                _item("Price disagreements", "difference", "billing_pricedisagreement"),
                _item("Price lists", "price_check", "billing_pricelist"),
                _item("Plans of tenants", "event_upcoming", "billing_planassignment"),
                _item("Discounts and margins", "percent", "billing_pricerule"),
                _item("Volume rebates", "stacked_bar_chart", "billing_rebatescale"),
                _item("Posted rebates", "redeem", "billing_volumerebate"),
                _item("Price corrections", "undo", "billing_rerating"),
                _item("Workers", "memory", "providers_worker"),
                _item("Worker keys", "vpn_key", "providers_workerkey"),
            ),
            _group(
                "Rules",
                _item("Quotas", "savings", "billing_quota"),
                _item("Credit alerts", "trending_down", "billing_creditalert"),
                _item("Rate limits", "speed", "billing_ratelimit"),
                _item("Routing policies", "alt_route", "gateway_routingpolicy"),
            ),
            _group(
                "Invoices",
                _item("Invoices", "request_quote", "billing_invoice"),
                _item("Billing profiles", "contact_mail", "billing_billingprofile"),
                _item("Adjustment notes", "tune", "billing_adjustmentnote"),
                _item("Credit notes", "undo", "billing_creditnote"),
                _item("Payments", "account_balance_wallet", "billing_payment"),
                _item("Bought credit", "shopping_cart", "billing_topup"),
                _item("Disputes", "gavel", "billing_dispute"),
                _item("Processor events", "webhook", "billing_processorevent"),
            ),
            _group(
                "Money",
                {
                    "title": "Token drift",
                    "icon": "balance",
                    "link": reverse_lazy("admin:providers_drift"),
                },
                _item("Usage events", "receipt_long", "billing_usageevent"),
                _item("Quarantine", "report", "billing_usageevent", "?state__exact=quarantined"),
                _item("Sellers' claims", "policy", "billing_claim", "?decided_at__isempty=1"),
                _item("Refused settles", "error", "billing_refusedsettle"),
                {
                    "title": "Open holds",
                    "icon": "hourglass_top",
                    "link": reverse_lazy("admin:billing_open_holds"),
                },
                _item("Providers' bills", "balance", "billing_providerbill"),
                _item("Payouts", "outbound", "billing_payout"),
                _item("Accounts", "account_balance", "billing_account"),
                _item("Transfers", "swap_horiz", "billing_transfer"),
                _item("Refusals", "block", "gateway_refusal"),
            ),
            _group(
                "Health",
                _item("Who changed what", "history", "billing_auditentry"),
                _item("Invariants", "verified", "billing_invariantcheck"),
                _item("Findings", "gpp_maybe", "billing_finding"),
                _item("Task runs", "schedule", "billing_taskrun"),
            ),
        ],
    },
}
