"""The playground: one question to one model, with what it cost."""

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from gateway.console import playground
from gateway.console.access import choose_member, tenant_page
from gateway.console.page_frame import render_page
from gateway.console.playground import Question
from gateway.models import Member
from gateway.tenants import keys
from gateway.tenants.roles import Action, require
from providers.boards import leaderboards


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@tenant_page
def page(request: HttpRequest, member: Member) -> HttpResponse:
    """POST begins a visit: it makes the key that the page then calls with."""
    plain = ""
    if request.method == "POST":
        require(member, Action.MAKE_KEYS)
        now = timezone.now()
        plain = keys.issue(
            tenant=member.tenant,
            team=member.team,
            name=keys.VISIT_NAME,
            created_by=member.user.get_username(),
            now=now,
            expires_at=now + keys.VISIT_LIFETIME,
        ).plain
    context = {
        "plain": plain,
        "models": [row for row in leaderboards.home() if row.routable],
        "tokens": playground.OUTPUT_TOKENS,
        "prompt_length": playground.PROMPT_LENGTH_MAX,
    }
    return render_page(request, "console/playground.html", context, nav="playground", member=member)


@require_POST
async def send(request: HttpRequest) -> HttpResponseBase:
    if not await sync_to_async(_is_member)(request):
        return HttpResponse("Sign in to use the playground.\n", status=403)
    question = Question(
        key=request.POST.get("key", ""),
        model=request.POST.get("model", "")[:200],
        prompt=request.POST.get("prompt", "")[: playground.PROMPT_LENGTH_MAX],
    )
    response = StreamingHttpResponse(playground.answer(question), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


def _is_member(request: HttpRequest) -> bool:
    """An answer can take minutes: its thread gives the connection back first."""
    try:
        return choose_member(request) is not None
    finally:
        connections.close_all()
