"""Where somebody else's prices are read, to hold ours against them."""

from django.db import models


class PriceSource(models.Model):
    """An address that answers with OpenRouter's list of models or LiteLLM's price map."""

    name = models.SlugField(max_length=60, unique=True)
    url = models.CharField(max_length=500)
    # Whose list it is where the answer does not say.
    provider = models.SlugField(max_length=80, default="openrouter")
    is_on = models.BooleanField(default=True)
    # A mirror of one's own: http, and addresses that are not public.
    is_private = models.BooleanField(default=False)
    tried_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.name
