"""What the demo asks: four kinds of work, some of which copy from their prompt and some not.

Extraction and code edits repeat long spans of the prompt, which prompt lookup can
draft; chat and questions do not. The mix is what makes the comparison on the board mean something.
"""

from typing import Final, TypedDict

NOTES: Final = (
    "Order 4411 from Mara Lindqvist: two boxes of filter paper and one brass funnel, to be sent "
    "to Harbour Street 9. Order 4412 from Jonas Okafor: one kettle, one scale, to be sent to Mill "
    "Lane 31. Order 4413 from Priya Raman: six cups and a grinder, to be sent to Station Road 2."
)
CODE: Final = """\
def total(prices, tax):
    result = 0
    for price in prices:
        result = result + price
    result = result * (1 + tax)
    return result


def average(prices):
    result = 0
    for price in prices:
        result = result + price
    return result / len(prices)
"""
ARTICLE: Final = (
    "The harbour was dredged twice in the last ten years, and both times the channel filled again "
    "within three winters. The council now wants a breakwater of local stone. Fishermen support "
    "it, because boats wait outside the bar at low tide. The sailing club opposes it, because the "
    "breakwater would close the eastern beach. A decision is due in spring."
)

PROMPTS: Final[dict[str, tuple[str, ...]]] = {
    "chat": (
        "What is a good name for a small bakery, and why?",
        "Write two sentences that welcome a new colleague.",
        "Why does bread rise?",
        "What should I see in a harbour town in one afternoon?",
    ),
    "extraction": (
        f"{NOTES}\n\nList each order as: number, name, address. Copy them exactly.",
        f"{NOTES}\n\nCopy the sentence about order 4412 exactly.",
    ),
    "code edit": (
        f"{CODE}\nRename the variable result to amount and print the whole code again.",
        f"{CODE}\nAdd a docstring to each function and print the whole code again.",
    ),
    "summary": (f"{ARTICLE}\n\nSummarise the text in two sentences, in its own words.",),
}
KINDS: Final = tuple(PROMPTS)


class Message(TypedDict):
    role: str
    content: str


class Routing(TypedDict):
    only: list[str]


class Body(TypedDict):
    """A chat request."""

    model: str
    messages: list[Message]
    max_tokens: int
    temperature: int
    stream: bool
    user: str
    provider: Routing


def body(*, kind: str, prompt: str, model: str, max_tokens: int, sku: str) -> Body:
    """A chat request; `sku` pins the offer so that both offers are measured on the same mix."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": kind != "extraction",
        "user": f"demo {kind}",
        "provider": {"only": [sku]},
    }
