"""Who may call and how their requests are routed: teams, members, API keys, routing policies."""

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models

from billing.snapshot_rows import SnapshotRow
from gateway.kinds import Role
from gateway.routing.policies import PolicyKind


class Team(SnapshotRow):
    """A group of a tenant's members with keys, limits and a policy of its own."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="teams")
    slug = models.SlugField(max_length=64)
    name = models.CharField(max_length=120)
    # Whom the company charges for it; the chargeback sums by this.
    cost_centre = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "slug"], name="team_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Member(models.Model):
    """A person in a tenant, with a role."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="members")
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, null=True, blank=True)
    role = models.CharField(max_length=16, choices=Role.choices(), default=Role.DEVELOPER.value)
    # Came from a group at the identity provider, and goes with it.
    by_sign_on = models.BooleanField(default=False, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "tenant"], name="member_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant}"


class SignInRule(models.Model):
    """What a tenant demands of its members when they sign in."""

    tenant = models.OneToOneField(
        "billing.Tenant", on_delete=models.CASCADE, related_name="sign_in_rule"
    )
    second_factor = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"{self.tenant_id}: {'' if self.second_factor else 'no '}second factor demanded"


class Identity(models.Model):
    """A person as an identity provider knows them; found by issuer and subject, never by mail."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="identities"
    )
    issuer = models.CharField(max_length=300)
    subject = models.CharField(max_length=255)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="identity_unique"),
        ]
        verbose_name_plural = "identities"

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"


class GroupMapping(models.Model):
    """What a group at the identity provider gives: a role, and perhaps a team, in one tenant."""

    group = models.CharField(max_length=255)
    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="+")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True)
    role = models.CharField(max_length=16, choices=Role.choices(), default=Role.DEVELOPER.value)

    class Meta:
        verbose_name_plural = "groups of the sign-on"
        constraints = [
            models.UniqueConstraint(fields=["group", "tenant"], name="group_mapping_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.group}: {self.role} of {self.tenant}"

    def clean(self) -> None:
        if self.team is not None and self.team.tenant_id != self.tenant_id:
            raise ValidationError({"team": "The team belongs to another tenant."})


class Invitation(models.Model):
    """Lets one person join a tenant, once. The token is shown once and kept as a hash."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="+")
    email = models.EmailField()
    role = models.CharField(max_length=16, choices=Role.choices())
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, null=True)
    token_hash = models.BinaryField(max_length=32, unique=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.email} to {self.tenant_id}"


class IdempotentCall(models.Model):
    """The answer to a write of the management API that carried an idempotency key. Without a
    tenant it is the operators'."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.CASCADE, null=True, related_name="+"
    )
    caller = models.CharField(max_length=160)
    key_hash = models.BinaryField(max_length=32)
    request_hash = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField(default=0)
    # Encrypted: an answer may hold a secret that is otherwise shown once.
    body = models.BinaryField(default=b"")
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "caller", "key_hash"],
                nulls_distinct=False,
                name="idempotent_call_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.caller} {self.status}"


class ApiKey(SnapshotRow):
    """A credential `tk-<public id>-<secret>`. The secret is shown once and kept as a hash."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="api_keys")
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, null=True, blank=True)
    name = models.CharField(max_length=80)
    public_id = models.CharField(max_length=24, unique=True)
    # SHA-256 of the whole key: secrets are 256 random bits, so no slow hash is needed.
    key_hash = models.BinaryField(max_length=32, unique=True)
    scopes = models.JSONField(default=list)
    # Empty means every model the tenant may use.
    models_allowed = models.JSONField(default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"

    def __str__(self) -> str:
        return f"{self.name} (tk-{self.public_id})"


class RoutingPolicy(SnapshotRow):
    """How a tenant's requests choose among offers; a team's own policy wins over the tenant's."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True)
    kind = models.CharField(
        max_length=24, choices=PolicyKind.choices(), default=PolicyKind.CHEAPEST.value
    )
    # For `pinned`: the offers' skus in order. Otherwise an allow-list of provider slugs.
    pinned_skus = models.JSONField(default=list, blank=True)
    providers_allowed = models.JSONField(default=list, blank=True)
    # Ceilings in pico-dollars per token; null means none.
    max_input_pico = models.BigIntegerField(null=True, blank=True)
    max_output_pico = models.BigIntegerField(null=True, blank=True)
    allow_fallbacks = models.BooleanField(default=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "routing policies"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "team"], nulls_distinct=False, name="routing_policy_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} for {self.tenant_id}"


class Seller(models.Model):
    """A team that owns a provider's offers: it names their prices and earns what they sell for,
    less the house's share."""

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="sellers")
    provider = models.OneToOneField("providers.Provider", on_delete=models.PROTECT)
    # Parts per million of the list price.
    house_share_ppm = models.PositiveIntegerField(default=0)
    registered_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(house_share_ppm__lte=1_000_000), name="house_share_at_most_all"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.team} sells as {self.provider}"


class Refusal(models.Model):
    """A request that was turned away before any attempt: no money moved, but people ask why."""

    request_id = models.UUIDField(unique=True)
    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE)
    api_key_id = models.BigIntegerField(null=True)
    model = models.CharField(max_length=200)
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=64)
    message = models.CharField(max_length=500)
    detail = models.JSONField(default=dict)
    occurred_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-occurred_at"]),
            models.Index(fields=["tenant", "request_id"], name="refusal_requests"),
            models.Index(fields=["tenant", "model", "request_id"], name="refusal_model"),
            models.Index(fields=["tenant", "api_key_id", "request_id"], name="refusal_key"),
            models.Index(fields=["code", "-id"], name="refusal_code"),
            models.Index(fields=["status", "-id"], name="refusal_status"),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.code} {self.request_id}"
