"""The public leaderboard: its home, the page of one model, and both as CSV."""

from datetime import timedelta
from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from gateway.console.board import board_table, home_table, own_mix, price_steps
from gateway.console.page_frame import render_page
from gateway.console.spreadsheet import csv_response
from providers.boards import leaderboards
from providers.boards.leaderboards import Board
from providers.boards.windows import DEFAULT_WINDOW, WINDOWS

HISTORY: Final = timedelta(days=365)


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    table = home_table.read(request.GET)
    return render_page(request, "board/home.html", {"table": table}, nav="board")


@require_safe
def home_csv(request: HttpRequest) -> HttpResponse:
    table = home_table.read(request.GET)
    rows = (home_table.csv_row(row) for row in table.rows)
    return csv_response("models.csv", head=home_table.CSV_HEAD, rows=rows)


@require_safe
def model(request: HttpRequest, slug: str) -> HttpResponse:
    board = _board(request, slug)
    basis = board_table.basis_of(request.GET.get("by", ""))
    lines = _lines(request, board)
    now = timezone.now()
    context = {
        "board": board,
        "basis": basis,
        "bases": board_table.BASES,
        "windows": list(WINDOWS),
        "lines": lines,
        "sort": request.GET.get("sort", ""),
        "speed_chart": board_table.speed_chart(lines),
        "steps": price_steps.read(slug, since=now - HISTORY, now=now),
    }
    return render_page(request, "board/model.html", context, nav="board")


@require_safe
def model_csv(request: HttpRequest, slug: str) -> HttpResponse:
    lines = _lines(request, _board(request, slug))
    rows = map(board_table.csv_row, lines)
    return csv_response(f"{slug}.csv", head=board_table.CSV_HEAD, rows=rows)


@require_safe
def history_csv(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    steps = price_steps.read(slug, since=now - HISTORY, now=now)
    return csv_response(f"{slug}-prices.csv", head=price_steps.CSV_HEAD, rows=steps.csv_rows())


def _window(request: HttpRequest) -> str:
    window = request.GET.get("window", DEFAULT_WINDOW)
    return window if window in WINDOWS else DEFAULT_WINDOW


def _board(request: HttpRequest, slug: str) -> Board:
    member = own_mix.wanted(request)
    mix = None if member is None else own_mix.mix_of(slug, member)
    board = leaderboards.board(slug, _window(request), mix=mix)
    if board is None:
        raise Http404("no such model")
    return board


def _lines(request: HttpRequest, board: Board) -> list[board_table.Line]:
    return board_table.lines(
        board.rows,
        basis=board_table.basis_of(request.GET.get("by", "")),
        sort=request.GET.get("sort", ""),
        descending=request.GET.get("dir") == "desc",
    )
