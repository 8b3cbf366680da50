"""Single sign-on by OpenID Connect: authorization code with PKCE, state and nonce, by Authlib.

Issuer, client and secret come from the settings; everything else is read from the issuer's own
description. Nothing here decides who somebody is: that is `identities`.
"""

from functools import lru_cache
from typing import Any, Final

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.django_client import OAuth
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from joserfc.errors import JoseError

from gateway.sign_on import identities
from gateway.sign_on.identities import Claims

NAME: Final = "house"
TIMEOUT_S: Final = 10
WELL_KNOWN: Final = "/.well-known/openid-configuration"


class SignOnFailed(RuntimeError):
    """The identity provider did not vouch for anybody; the text is for the person."""


def is_configured() -> bool:
    return bool(settings.OIDC_ISSUER and settings.OIDC_CLIENT_ID)


def begin(request: HttpRequest, *, return_url: str) -> HttpResponse:
    """Send the person to the identity provider."""
    try:
        answer: HttpResponse = _client().authorize_redirect(request, return_url)
    except (AuthlibBaseError, requests.RequestException, ValueError) as problem:
        raise SignOnFailed("The identity provider does not answer. Try again.") from problem
    return answer


def claims_of(request: HttpRequest) -> Claims:
    """Who came back: the claims of a checked ID token, completed from the userinfo endpoint."""
    client = _client()
    try:
        token = client.authorize_access_token(request, timeout=TIMEOUT_S)
        claims = dict(token.get("userinfo") or {})
        if not claims.get("sub"):
            raise SignOnFailed("The identity provider did not say who you are.")
        if settings.OIDC_GROUPS_CLAIM not in claims:
            told = dict(client.userinfo(token=token, timeout=TIMEOUT_S))
            if told.get("sub") == claims["sub"]:
                claims = {**told, **claims}
    except (AuthlibBaseError, JoseError, requests.RequestException, ValueError) as problem:
        raise SignOnFailed("Signing in was not completed. Try again.") from problem
    return identities.claims_in(claims, groups_claim=settings.OIDC_GROUPS_CLAIM)


def _client() -> Any:
    return _registered(settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET)


@lru_cache(maxsize=4)
def _registered(issuer: str, client_id: str, secret: str) -> Any:
    return OAuth().register(
        NAME,
        client_id=client_id,
        client_secret=secret or None,
        server_metadata_url=issuer.rstrip("/") + WELL_KNOWN,
        client_kwargs={
            "scope": settings.OIDC_SCOPES,
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT_S,
            "token_endpoint_auth_method": "client_secret_basic" if secret else "none",
        },
    )
