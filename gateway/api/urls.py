"""Addresses of the management API, below `/api/`."""

from django.urls import path

from gateway.api import (
    docs,
    invoices,
    limits,
    market,
    members,
    payouts,
    tenant_settings,
    tenants,
    usage,
    workers,
)

TENANT = "v1/tenants/<slug:tenant>"

urlpatterns = [
    path("schema/", docs.description, name="api-schema"),
    path("docs/", docs.reference, name="api-docs"),
    path("workers/register", workers.RegisterView.as_view(), name="worker-register"),
    path("workers/heartbeat", workers.HeartbeatView.as_view(), name="worker-heartbeat"),
    path("v1/leaderboards/", market.HomeBoardView.as_view(), name="api-home-board"),
    path(
        "v1/leaderboards/<path:model>/prices/", market.PriceHistoryView.as_view(), name="api-prices"
    ),
    path("v1/leaderboards/<path:model>/", market.BoardView.as_view(), name="api-board"),
    path("v1/prices/", market.PriceListView.as_view(), name="api-price-list"),
    path("v1/sellers/", payouts.SellerListView.as_view(), name="api-sellers"),
    path(
        "v1/sellers/<str:seller>/statement/",
        payouts.SellerStatementView.as_view(),
        name="api-seller-statement",
    ),
    path("v1/payouts/", payouts.PayoutListView.as_view(), name="api-payouts"),
    path("v1/tenants/", tenants.TenantListView.as_view(), name="api-tenants"),
    path(f"{TENANT}/balance/", tenants.BalanceView.as_view(), name="api-balance"),
    path(f"{TENANT}/settings/", tenant_settings.SettingsView.as_view(), name="api-settings"),
    path(
        f"{TENANT}/alert-channels/", tenant_settings.ChannelListView.as_view(), name="api-channels"
    ),
    path(
        f"{TENANT}/alert-channels/<int:channel_id>/",
        tenant_settings.ChannelView.as_view(),
        name="api-channel",
    ),
    path(f"{TENANT}/teams/", tenants.TeamListView.as_view(), name="api-teams"),
    path(f"{TENANT}/teams/<slug:team>/", tenants.TeamView.as_view(), name="api-team"),
    path(f"{TENANT}/members/", members.MemberListView.as_view(), name="api-members"),
    path(f"{TENANT}/members/<int:member_id>/", members.MemberView.as_view(), name="api-member"),
    path(f"{TENANT}/invoices/", invoices.InvoiceListView.as_view(), name="api-invoices"),
    path(f"{TENANT}/invoices/<str:number>/", invoices.InvoiceView.as_view(), name="api-invoice"),
    path(
        f"{TENANT}/adjustments/",
        invoices.AdjustmentListView.as_view(),
        name="api-adjustments",
    ),
    path(f"{TENANT}/receipts/", invoices.ReceiptListView.as_view(), name="api-receipts"),
    path(f"{TENANT}/refunds/", invoices.RefundListView.as_view(), name="api-refunds"),
    path(f"{TENANT}/keys/", tenants.KeyListView.as_view(), name="api-keys"),
    path(f"{TENANT}/keys/<int:key_id>/", tenants.KeyView.as_view(), name="api-key"),
    path(f"{TENANT}/quotas/", limits.QuotaListView.as_view(), name="api-quotas"),
    path(f"{TENANT}/quotas/<int:quota_id>/", limits.QuotaView.as_view(), name="api-quota"),
    path(
        f"{TENANT}/quotas/<int:quota_id>/raise/",
        limits.QuotaRaiseView.as_view(),
        name="api-quota-raise",
    ),
    path(f"{TENANT}/rate-limits/", limits.RateLimitListView.as_view(), name="api-rate-limits"),
    path(f"{TENANT}/routing-policy/", limits.PolicyView.as_view(), name="api-policy"),
    path(f"{TENANT}/usage/", usage.UsageView.as_view(), name="api-usage"),
    path(f"{TENANT}/chargeback/", usage.ChargebackView.as_view(), name="api-chargeback"),
    path(f"{TENANT}/requests/", usage.RequestListView.as_view(), name="api-requests"),
    path(f"{TENANT}/requests/<uuid:request_id>/", usage.RequestView.as_view(), name="api-request"),
]
