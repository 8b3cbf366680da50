"""What the catalogue's price data does not say of a seller: address, API, billing habits.

Only documented, public endpoints. A seller that is missing here is listed and ranked by its list
price, and says that its API is not spoken yet.
"""

from dataclasses import dataclass

OPENAI = "openai"
ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class SellerTerms:
    """`upstream_prefix` and `upstream_suffix` turn a catalogue id into the id that is sent."""

    base_url: str = ""
    wire: str = ""
    cancel_stops_billing: bool = True
    upstream_prefix: str = ""
    upstream_suffix: str = ""


# Sellers known to go on billing after the client hung up keep `cancel_stops_billing` False: their
# answers are read to the end.
TERMS: dict[str, SellerTerms] = {
    "anthropic": SellerTerms("https://api.anthropic.com", ANTHROPIC),
    "openai": SellerTerms("https://api.openai.com/v1", OPENAI),
    "avian": SellerTerms("https://api.avian.io/v1", OPENAI),
    "baseten": SellerTerms("https://inference.baseten.co/v1", OPENAI),
    "cerebras": SellerTerms("https://api.cerebras.ai/v1", OPENAI),
    "cohere": SellerTerms("https://api.cohere.ai/compatibility/v1", OPENAI),
    "deepseek": SellerTerms("https://api.deepseek.com/v1", OPENAI),
    "fireworks": SellerTerms(
        "https://api.fireworks.ai/inference/v1",
        OPENAI,
        upstream_prefix="accounts/fireworks/models/",
    ),
    "google": SellerTerms("https://generativelanguage.googleapis.com/v1beta/openai", OPENAI, False),
    "groq": SellerTerms("https://api.groq.com/openai/v1", OPENAI, False),
    "minimax": SellerTerms("https://api.minimax.io/v1", OPENAI, False),
    "mistral": SellerTerms("https://api.mistral.ai/v1", OPENAI, False),
    "moonshotai": SellerTerms("https://api.moonshot.ai/v1", OPENAI),
    "novita": SellerTerms("https://api.novita.ai/v3/openai", OPENAI),
    "openrouter": SellerTerms("https://openrouter.ai/api/v1", OPENAI),
    "ovhcloud": SellerTerms("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", OPENAI, False),
    "perplexity": SellerTerms("https://api.perplexity.ai", OPENAI, False),
    "together": SellerTerms("https://api.together.xyz/v1", OPENAI),
    "x-ai": SellerTerms("https://api.x.ai/v1", OPENAI),
    "zai": SellerTerms("https://api.z.ai/api/paas/v4", OPENAI, False),
    "zhipuai": SellerTerms("https://open.bigmodel.cn/api/paas/v4", OPENAI, False),
}

HUGGING_FACE_PREFIX = "huggingface_"
HUGGING_FACE_URL = "https://router.huggingface.co/v1"


def terms_of(provider_id: str) -> SellerTerms:
    if provider_id.startswith(HUGGING_FACE_PREFIX):
        seller = provider_id.removeprefix(HUGGING_FACE_PREFIX)
        return SellerTerms(HUGGING_FACE_URL, OPENAI, False, upstream_suffix=f":{seller}")
    return TERMS.get(provider_id, SellerTerms())
