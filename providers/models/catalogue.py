"""The catalogue: who sells (Provider), what (Model), on which terms (Offer)."""

from django.db import models

from billing.snapshot_rows import SnapshotRow


class Provider(SnapshotRow):
    """A seller. In-house workers and attached pools are sellers like any other."""

    not_in_snapshot = frozenset({"website", "check_url", "load"})

    class Kind(models.TextChoices):
        EXTERNAL = "external"
        IN_HOUSE = "in_house"  # our own workers, registered with a worker key
        POOL = "pool"  # an existing OpenAI-compatible server attached by its base URL

    class Wire(models.TextChoices):
        OPENAI = "openai"
        ANTHROPIC = "anthropic"
        NONE = ""  # listed and ranked by list price, but we do not speak its wire yet

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.EXTERNAL)
    wire = models.CharField(max_length=16, choices=Wire, default=Wire.NONE, blank=True)
    base_url = models.URLField(blank=True, max_length=300)
    website = models.URLField(blank=True)
    # Whether hanging up stops the provider's bill: abort if so, read to the end if not.
    cancel_stops_billing = models.BooleanField(default=True)
    enabled = models.BooleanField(default=True)
    # Where a pool says that it lives; empty: at its list of models.
    check_url = models.URLField(blank=True, max_length=300)
    # What a pool last said of its load, in the words of providers.machines.pool_metrics.
    load = models.JSONField(default=dict, blank=True)
    # Whether a pool takes a `cache_salt` for each tenant; unknown until its metrics name an engine
    # that does, or the operator said so.
    salted = models.BooleanField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Model(SnapshotRow):
    """A weights family that several providers may sell."""

    slug = models.CharField(max_length=160, unique=True)
    name = models.CharField(max_length=160)
    creator = models.CharField(max_length=80, blank=True)
    context_length = models.PositiveIntegerField(null=True, blank=True)

    def __str__(self) -> str:
        return self.slug


class Offer(SnapshotRow):
    """A provider selling a model on terms. `sku` is all that billing knows of it."""

    class State(models.TextChoices):
        LIVE = "live"
        DEMOTED = "demoted"  # heartbeat gap: ranked after every live offer
        REMOVED = "removed"  # a direct check failed: not routable until one succeeds
        DISABLED = "disabled"  # by an operator

    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="offers")
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="offers")
    # Tells apart two offers of one model by one provider, for example "ngram".
    variant = models.CharField(max_length=80, blank=True, default="")
    sku = models.CharField(max_length=200, unique=True)
    upstream_model = models.CharField(max_length=200)
    base_url = models.URLField(blank=True, max_length=300)
    context_length = models.PositiveIntegerField(null=True, blank=True)
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True)
    quantization = models.CharField(max_length=16, blank=True, default="")
    capabilities = models.JSONField(default=list, blank=True)
    techniques = models.JSONField(default=list, blank=True)
    state = models.CharField(max_length=16, choices=State, default=State.LIVE)
    state_reason = models.CharField(max_length=200, blank=True, default="")
    state_changed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "model", "variant"], name="offer_unique"),
        ]

    def __str__(self) -> str:
        return self.sku
