"""What people and keys may be, as tables, forms, the API, files and the data plane name it. Pure.

As in `billing.kinds`, each list stands here once; the policies' is in `gateway.routing.policies`.
"""

from typing import Final

from billing.kinds import Listed


class Role(Listed):
    """What a member of a tenant is; what each may touch: `gateway.tenants.roles`."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class KeyScope(Listed):
    """What a key may be for, as tenants give it."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


INFERENCE: Final = KeyScope.INFERENCE.value
MANAGEMENT: Final = KeyScope.MANAGEMENT.value
SCOPES: Final = tuple(KeyScope.values())
# Of the house, beyond any tenant: given by operators alone, and by nothing that asks for SCOPES.
OPERATOR: Final = "operator"
