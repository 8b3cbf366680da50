"""The people of a tenant: who they are, inviting, changing roles; and accepting an invitation."""

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from redis.exceptions import RedisError

from gateway.console.access import SESSION_TENANT, tenant_page
from gateway.console.forms import LongSelect, PlainForm
from gateway.console.page_frame import render_page
from gateway.console.saying import saying
from gateway.kinds import Role
from gateway.models import Invitation, Member, Team
from gateway.sign_on import second_factor
from gateway.tenants import keys, members, roles, sign_in_rules
from gateway.tenants.members import MemberRefused
from gateway.tenants.roles import Action, require

BACKEND = "django.contrib.auth.backends.ModelBackend"


class MemberForm(PlainForm):
    role = forms.ChoiceField(choices=Role.choices(), initial=Role.DEVELOPER)
    team = forms.ModelChoiceField(
        Team.objects.none(), required=False, empty_label="No team", widget=LongSelect
    )

    def __init__(self, *args: object, member: Member, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        team = self.fields["team"]
        assert isinstance(team, forms.ModelChoiceField)
        team.queryset = Team.objects.filter(tenant=member.tenant).order_by("name")


class InviteForm(MemberForm):
    email = forms.EmailField(max_length=254)
    field_order = ("email", "role", "team")


class NewUserForm(PlainForm):
    """Somebody who has no account here yet."""

    username = forms.CharField(max_length=150, validators=[User.username_validator])
    password = forms.CharField(
        max_length=200, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, User(username=self.cleaned_data.get("username", "")))
        return password


@require_safe
@tenant_page
def member_list(request: HttpRequest, member: Member) -> HttpResponse:
    return _page(request, member, InviteForm(member=member))


@never_cache
@require_POST
@tenant_page
def invite(request: HttpRequest, member: Member) -> HttpResponse:
    """Answers with the link itself, not with a redirect: its token is stored nowhere."""
    require(member, Action.MANAGE_PEOPLE)
    form = InviteForm(request.POST, member=member)
    if not form.is_valid():
        return _page(request, member, form, status=422)
    try:
        invited = members.invite(by=member, now=timezone.now(), **form.cleaned_data)
    except MemberRefused as refusal:
        form.add_error(None, str(refusal))
        return _page(request, member, form, status=422)
    link = f"{settings.PUBLIC_CONSOLE_URL}{reverse('accept-invitation', args=[invited.token])}"
    return _page(request, member, InviteForm(member=member), link=link, status=201)


@require_POST
@tenant_page
def withdraw(request: HttpRequest, member: Member, invitation_id: int) -> HttpResponse:
    require(member, Action.MANAGE_PEOPLE)
    try:
        members.withdraw(by=member, invitation_id=invitation_id, now=timezone.now())
    except MemberRefused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, "The invitation is withdrawn; its link no longer works.")
    return redirect("members")


@require_POST
@tenant_page
def change(request: HttpRequest, member: Member, member_id: int) -> HttpResponse:
    require(member, Action.MANAGE_PEOPLE)
    form = MemberForm(request.POST, member=member)
    if not form.is_valid():
        messages.error(request, "Choose a role, and a team of this tenant.")
        return redirect("members")
    with saying(request, "Saved."):
        members.change(
            tenant=member.tenant,
            by=member.user.get_username(),
            by_role=member.role,
            member_id=member_id,
            now=timezone.now(),
            **form.cleaned_data,
        )
    return redirect("members")


@require_POST
@tenant_page
def remove(request: HttpRequest, member: Member, member_id: int) -> HttpResponse:
    require(member, Action.MANAGE_PEOPLE)
    with saying(request, "The membership has ended. Their keys go on until revoked."):
        members.remove(
            tenant=member.tenant,
            by=member.user.get_username(),
            by_role=member.role,
            member_id=member_id,
            now=timezone.now(),
        )
    return redirect("members")


@require_POST
@tenant_page
def revoke_left(request: HttpRequest, member: Member) -> HttpResponse:
    """Revoke the keys of people who have left: those named, of those that are listed."""
    require(member, Action.MANAGE_PEOPLE)
    now, named = timezone.now(), set(request.POST.getlist("key"))
    chosen = [key for key in members.keys_left(member.tenant, now=now) if str(key.pk) in named]
    for key in chosen:
        require(member, Action.REVOKE_KEYS, roles.key_thing(key))
    try:
        for key in chosen:
            keys.revoke(key=key, actor=member.user.get_username(), now=now)
    except RedisError:
        messages.error(request, "Not all were revoked: Redis does not answer. Try again.")
    else:
        counted = "1 key is" if len(chosen) == 1 else f"{len(chosen)} keys are"
        messages.success(request, f"{counted} revoked. Calls with them fail from now on.")
    return redirect("members")


@require_POST
@tenant_page
def set_second_factor(request: HttpRequest, member: Member) -> HttpResponse:
    """Demand a second factor of every member of the tenant, or no longer."""
    require(member, Action.MANAGE_PEOPLE)
    is_demanded = request.POST.get("second_factor") == "on"
    sign_in_rules.set_second_factor(
        tenant=member.tenant,
        is_demanded=is_demanded,
        actor=member.user.get_username(),
        now=timezone.now(),
    )
    messages.success(request, "Saved. It holds from everybody's next page on.")
    return redirect("members")


@never_cache
@require_http_methods(["GET", "POST"])
def accept(request: HttpRequest, token: str) -> HttpResponse:
    """Join with the account one is signed in with, else make one."""
    invitation = members.open_invitation(token, now=timezone.now())
    if invitation is None:
        return render_page(request, "console/invitation_over.html", {}, nav="", status=404)
    is_known = isinstance(request.user, User)
    form = None if is_known else NewUserForm(request.POST or None)
    if request.method == "POST" and (form is None or form.is_valid()):
        try:
            user = _joined(request, token, form)
        except (MemberRefused, IntegrityError) as refusal:
            taken = isinstance(refusal, IntegrityError)
            problem = "that name is taken" if taken else str(refusal)
            messages.error(request, f"Nothing was changed: {problem}.")
        else:
            if not is_known:
                login(request, user, backend=BACKEND)
                second_factor.note_password(request, user)
            request.session[SESSION_TENANT] = invitation.tenant_id
            return redirect("overview")
    context = {"invitation": invitation, "form": form}
    return render_page(request, "console/invitation.html", context, nav="")


def _joined(request: HttpRequest, token: str, form: NewUserForm | None) -> User:
    """The account and the membership, or neither."""
    with transaction.atomic():
        if form is None:
            assert isinstance(request.user, User)
            user = request.user
        else:
            user = User.objects.create_user(**form.cleaned_data)
        members.accept(token=token, user=user, now=timezone.now())
    return user


def _page(
    request: HttpRequest, member: Member, form: InviteForm, *, link: str = "", status: int = 200
) -> HttpResponse:
    found = Member.objects.filter(tenant=member.tenant).select_related("user", "team")
    waiting = Invitation.objects.filter(
        tenant=member.tenant, accepted_at=None, expires_at__gt=timezone.now()
    )
    context = {
        "people": found.order_by("user__username"),
        # Once for the page, however many people choose among them.
        "roles": Role.choices(),
        "teams": list(Team.objects.filter(tenant=member.tenant).order_by("name")),
        "waiting": waiting.select_related("team").order_by("email"),
        "form": form,
        "link": link,
        "second_factor_demanded": sign_in_rules.demands_second_factor(member.tenant),
        "with_second_factor": second_factor.holders(found),
        "keys_left": members.keys_left(member.tenant, now=timezone.now()),
    }
    return render_page(
        request, "console/members.html", context, nav="members", member=member, status=status
    )
