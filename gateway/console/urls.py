"""Addresses of the pages. A model's slug may hold slashes, so what follows it comes first."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from gateway.console.views import (
    board,
    budgets,
    keys,
    live,
    overview,
    playground,
    requests,
    routing,
    session,
    start,
)

urlpatterns = [
    path("", board.home, name="board"),
    path("models.csv", board.home_csv, name="board-csv"),
    path("models/<path:slug>/offers.csv", board.model_csv, name="model-csv"),
    path("models/<path:slug>/prices.csv", board.history_csv, name="history-csv"),
    path("models/<path:slug>/", board.model, name="model"),
    path("live/home/", live.home, name="live-home"),
    path("live/board/", live.board, name="live-board"),
    path("live/requests/", live.requests, name="live-requests"),
    path("overview/", overview.overview, name="overview"),
    path("overview/spend.csv", overview.spend_csv, name="spend-csv"),
    path("start/", start.start, name="start"),
    path("start/key/", start.start_with_key, name="start-key"),
    path("start/arrived/", start.arrived, name="start-arrived"),
    path("requests/", requests.requests, name="requests"),
    path("requests/<uuid:request_id>/", requests.one_request, name="request"),
    path("keys/", keys.key_list, name="keys"),
    path("keys/new/", keys.create_key, name="create-key"),
    path("keys/<int:key_id>/revoke/", keys.revoke_key, name="revoke-key"),
    path("budgets/", budgets.budgets, name="budgets"),
    path("budgets/quota/", budgets.set_quota, name="set-quota"),
    path("budgets/quota/<int:quota_id>/remove/", budgets.remove_quota, name="remove-quota"),
    path("budgets/rate-limit/", budgets.set_rate_limit, name="set-rate-limit"),
    path("routing/", routing.routing, name="routing"),
    path("playground/", playground.page, name="playground"),
    path("playground/send/", playground.send, name="playground-send"),
    path("login/", session.SignInView.as_view(), name="login"),
    path("logout/", LogoutView.as_view(next_page="board"), name="logout"),
    path("tenant/", session.choose_tenant, name="choose-tenant"),
    path("theme/", session.choose_theme, name="theme"),
]
