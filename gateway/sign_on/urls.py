"""Addresses below `/account/second-factor/`: those of allauth that we use, and no other of it."""

from allauth.mfa.base.views import index
from allauth.mfa.base.views import reauthenticate as give
from allauth.mfa.recovery_codes.views import (
    download_recovery_codes,
    generate_recovery_codes,
    view_recovery_codes,
)
from allauth.mfa.webauthn import views as passkeys
from django.urls import path

from gateway.sign_on import enrolment

urlpatterns = [
    path("", index, name="mfa_index"),
    path("give/", give, name="mfa_reauthenticate"),
    path("app/", enrolment.AddApp.as_view(), name="mfa_activate_totp"),
    path("app/remove/", enrolment.RemoveApp.as_view(), name="mfa_deactivate_totp"),
    path("codes/", view_recovery_codes, name="mfa_view_recovery_codes"),
    path("codes/new/", generate_recovery_codes, name="mfa_generate_recovery_codes"),
    path("codes/recovery-codes.txt", download_recovery_codes, name="mfa_download_recovery_codes"),
    path("passkeys/", passkeys.list_webauthn, name="mfa_list_webauthn"),
    path("passkeys/add/", enrolment.AddPasskey.as_view(), name="mfa_add_webauthn"),
    path("passkeys/give/", passkeys.reauthenticate_webauthn, name="mfa_reauthenticate_webauthn"),
    path(
        "passkeys/<int:pk>/remove/", enrolment.RemovePasskey.as_view(), name="mfa_remove_webauthn"
    ),
    path("passkeys/<int:pk>/name/", passkeys.edit_webauthn, name="mfa_edit_webauthn"),
]
