"""Which catalogue entries are the same weights: one canonical slug per weights family. Pure.

Merging two different models would put a wrong seller on a board, so a rule applies only where the
name makes it certain; everything else keeps a slug of its own. Quantised copies of the same weights
and faster or free servings of them are the same model: that becomes the offer's variant.
"""

import re
from dataclasses import dataclass

AWS_REGIONS = ("global.", "regional.", "us.", "eu.", "apac.", "au.", "jp.", "us-gov.")
AWS_VENDORS = (
    "anthropic.", "amazon.", "meta.", "mistral.", "cohere.", "ai21.", "deepseek.", "openai.",
    "moonshotai.", "moonshot.", "zai.", "qwen.", "google.", "nvidia.", "minimax.", "writer.",
)  # fmt: skip
QUANTIZATIONS = ("fp8", "fp4", "nvfp4", "bf16", "fp16", "awq", "int8", "int4", "fp6")
# Sellers that mark a faster or regional serving of the same weights with a suffix.
SERVING_SUFFIXES = {
    "fireworks": ("-ultrafast", "-fast", "-us"),
    "baseten": ("-fast",),
    "cloudflare": ("-fast",),
    "novita": ("-turbo",),
    "together": ("-turbo",),
    "huggingface_together": ("-turbo",),
}
# Names under which one seller sells weights that everybody else calls differently.
ALIASES = {
    ("groq", "llama-3.1-8b-instant"): "llama-3.1-8b-instruct",
    ("groq", "llama-3.1-70b-versatile"): "llama-3.1-70b-instruct",
    ("groq", "llama-3.3-70b-versatile"): "llama-3.3-70b-instruct",
    ("groq", "llama-3-70b-8192"): "llama-3-70b-instruct",
    ("groq", "llama-3-8b-8192"): "llama-3-8b-instruct",
    ("groq", "mixtral-8x7b-32768"): "mixtral-8x7b-instruct",
    ("cerebras", "llama-3.1-8b"): "llama-3.1-8b-instruct",
    ("cerebras", "llama-3.3-70b"): "llama-3.3-70b-instruct",
    ("cerebras", "gemma-4-31b"): "gemma-4-31b-it",
    ("cerebras", "qwen3-coder-480b"): "qwen3-coder-480b-a35b-instruct",
    ("aws", "r1"): "deepseek-r1",
    ("together", "llama-3-70b-chat-hf"): "llama-3-70b-instruct",
    ("together", "llama-3-8b-chat-hf"): "llama-3-8b-instruct",
    ("ovhcloud", "mixtral-8x7b-instruct-v0.1"): "mixtral-8x7b-instruct",
    ("databricks", "llama-4-maverick"): "llama-4-maverick-17b-128e-instruct",
    ("databricks", "gemma-3-12b"): "gemma-3-12b-it",
}
# LiteLLM's names of sellers, where the catalogue has another.
LITELLM_SELLERS = {
    "gemini": "google",
    "vertex_ai": "google",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "xai": "x-ai",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "moonshot": "moonshotai",
    "cohere_chat": "cohere",
}
CREATORS = (
    (r"claude", "Anthropic"),
    (r"gpt|chatgpt|o[134](-|$)|davinci|curie|babbage|ada$|codex|text-embedding-[3a]", "OpenAI"),
    (r"gemini|gemma|palm|text-bison", "Google"),
    (r"llama|muse-|codellama", "Meta"),
    (r"mistral|mixtral|(code|magi|dev)stral|ministral|pixtral|voxtral", "Mistral AI"),
    (r"deepseek", "DeepSeek"),
    (r"qwen|qwq|qvq", "Alibaba"),
    (r"glm|zai-", "Z.AI"),
    (r"kimi|moonshot", "Moonshot AI"),
    (r"grok", "xAI"),
    (r"minimax|abab", "MiniMax"),
    (r"nova-|titan-", "Amazon"),
    (r"command|c4ai|aya-|embed-(english|multilingual)|rerank-v", "Cohere"),
    (r"phi-|wizardlm|mai-", "Microsoft"),
    (r"nemotron", "NVIDIA"),
    (r"smollm", "Hugging Face"),
    (r"jamba|jurassic", "AI21"),
    (r"hermes|nous-", "Nous Research"),
    (r"sonar|r1-1776|pplx", "Perplexity"),
    (r"mercury", "Inception"),
    (r"ernie", "Baidu"),
    (r"seed-|doubao|ui-tars", "ByteDance"),
    (r"hunyuan|hy\d", "Tencent"),
    (r"granite", "IBM"),
    (r"olmo|molmo|tulu", "Ai2"),
    (r"mimo", "Xiaomi"),
    (r"inkling", "Thinking Machines"),
    (r"voyage", "Voyage AI"),
    (r"trinity|arcee|virtuoso|coder-large|spotlight|maestro", "Arcee"),
)  # fmt: skip
# A creator's own shop: whose price is "the creator's own".
CREATOR_SELLERS = {
    "Anthropic": "anthropic", "OpenAI": "openai", "Google": "google", "Meta": "meta",
    "Mistral AI": "mistral", "DeepSeek": "deepseek", "Z.AI": "zai", "Moonshot AI": "moonshotai",
    "xAI": "x-ai", "MiniMax": "minimax", "Amazon": "aws", "Cohere": "cohere",
    "Perplexity": "perplexity", "Voyage AI": "voyageai", "Arcee": "arcee",
}  # fmt: skip

_CREATORS = tuple((re.compile(rf"^({pattern})"), name) for pattern, name in CREATORS)
_WORDS = {
    "gpt": "GPT", "glm": "GLM", "oss": "OSS", "vl": "VL", "it": "IT", "ai": "AI", "qwq": "QwQ",
    "deepseek": "DeepSeek", "minimax": "MiniMax", "smollm2": "SmolLM2", "chatgpt": "ChatGPT",
    "olmo": "OLMo", "mimo": "MiMo", "ft": "Fine-tuned", "codellama": "CodeLlama",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    slug: str
    variant: str
    quantization: str


def name_of(provider_id: str, model_id: str) -> Name:
    """The canonical name behind a seller's id of a model."""
    text = model_id.lower().strip()
    variants: list[str] = []
    if provider_id == "aws":
        text, variants = _without_aws_wrapping(text)
    if text.startswith("ft:"):
        text = text.replace(":", "-")
    text, _, tag = text.partition(":")
    text = text.removeprefix("@cf/").rsplit("/", 1)[-1].replace("_", "-")
    variants += [tag] if tag else []
    if provider_id == "databricks":
        text = text.removeprefix("databricks-")
    if provider_id == "fireworks":
        text = re.sub(r"(?<=\d)p(?=\d)", ".", text)
    text, serving = _without_serving(provider_id, text)
    variants += serving
    text, quantization = _without_quantization(text)
    text = _spelled(text)
    text = ALIASES.get((provider_id, text), text)
    return Name(slug=text, variant="-".join(variants), quantization=quantization)


def _without_aws_wrapping(text: str) -> tuple[str, list[str]]:
    """`global.` is where AWS sells first; any other region is a variant of its own."""
    variants = []
    for region in AWS_REGIONS:
        if text.startswith(region):
            text = text.removeprefix(region)
            variants = [] if region == "global." else [region[:-1]]
            break
    for vendor in AWS_VENDORS:
        if text.startswith(vendor):
            text = text.removeprefix(vendor)
            break
    return re.sub(r"-v[1-9]\d*(:\d+)?(:\d+k)?$", "", text), variants


def _without_serving(provider_id: str, text: str) -> tuple[str, list[str]]:
    for suffix in SERVING_SUFFIXES.get(provider_id, ()):
        if text.endswith(suffix):
            return text.removesuffix(suffix), [suffix[1:]]
    return text, []


def _without_quantization(text: str) -> tuple[str, str]:
    base, _, last = text.rpartition("-")
    return (base, last) if base and last in QUANTIZATIONS else (text, "")


def _spelled(text: str) -> str:
    """One spelling for the same name: dots in versions, no vendor before the family."""
    for vendor in ("meta-llama-", "zai-glm-", "nvidia-nemotron-"):
        if text.startswith(vendor):
            text = text.split("-", 1)[1]
    text = re.sub(r"^llama-v(?=\d)", "llama-", text)
    text = re.sub(r"^llama(?=\d)", "llama-", text)
    text = re.sub(r"^qwen-(?=\d)", "qwen", text)
    # "3-5" is version 3.5; "4-0314" and "2024-05-13" are dates and stay.
    text = re.sub(r"(?<![\d.])(\d)-(\d)(?=-|$)", r"\1.\2", text)
    text = re.sub(r"^qwen35-", "qwen3.5-", text)
    if text.startswith("claude"):
        # Two different models were sold as 3.5 Sonnet, told apart by the date alone.
        keeps_date = text.startswith("claude-3.5-sonnet")
        text = re.sub(r"-latest$" if keeps_date else r"-(20\d{6}|latest)$", "", text)
        text = re.sub(r"^claude-(opus|sonnet)-4\.0$", r"claude-\1-4", text)
        text = re.sub(r"^claude-(\d(?:\.\d)?)-(opus|sonnet)$", _claude_order, text)
    return text


def _claude_order(match: re.Match[str]) -> str:
    """`claude-4-opus` and `claude-opus-4` are one model; before version 4 the number came first."""
    version, family = match.groups()
    return f"claude-{family}-{version}" if version >= "4" else match.group()


def creator_of(slug: str) -> str:
    """Who trained the weights, where the family's name says so; empty otherwise."""
    for pattern, creator in _CREATORS:
        if pattern.match(slug):
            return creator
    return ""


def title_of(slug: str) -> str:
    """A name for people: `llama-3.3-70b-instruct` is "Llama 3.3 70B Instruct"."""
    return " ".join(_word(word) for word in slug.split("-") if word)


def _word(word: str) -> str:
    if word in _WORDS:
        return _WORDS[word]
    if re.fullmatch(r"[ae]?\d+(\.\d+)?[bkmte]", word) or re.fullmatch(r"\d+x\d+b", word):
        return word.upper().replace("X", "x")
    return word[:1].upper() + word[1:]
