"""The fixed prompts of the engine's bench, by class: copying work, and work that copies nothing.

`CLASSES` are for looking and tuning, `TUNING` are more of the kind with them. `HELD_OUT`, eight of
each class, give the published figures: nothing may be tuned on them.
"""

import tomllib
from pathlib import Path
from typing import Final

COPY_HEAVY: Final = ("summarise", "extract", "code edit")

ARTICLE = (
    "The town of Harlow opened its new library on Monday after four years of building. The "
    "library holds ninety thousand books, a workshop with sewing machines and printers, and a "
    "garden on the roof. Mayor Elena Ruiz said that the library cost twelve million euros, two "
    "million less than planned, because the old market hall was kept and not pulled down. The "
    "garden on the roof will be tended by pupils of the two schools nearby. Critics say that the "
    "bus lines to the library stop at six in the evening, while the library stays open until ten."
)
CONTACTS = (
    "Anna Berg, anna.berg@example.org, +47 22 33 44 55, Oslo\n"
    "Luis Paredes, luis.paredes@example.com, +51 1 234 5678, Lima\n"
    "Mei Tan, mei.tan@example.net, +65 6123 4567, Singapore\n"
    "Omar Haddad, omar.haddad@example.org, +212 522 123 456, Casablanca\n"
)
CODE = (
    "def average(values):\n"
    "    total = 0\n"
    "    count = 0\n"
    "    for value in values:\n"
    "        total = total + value\n"
    "        count = count + 1\n"
    "    if count == 0:\n"
    "        return None\n"
    "    return total / count\n"
)

CLASSES: dict[str, tuple[str, ...]] = {
    "summarise": (
        f"Summarise this article in three sentences, in its own words:\n{ARTICLE}",
        f"Write a short version of this article for a newsletter:\n{ARTICLE}",
        f"List the main facts of this article:\n{ARTICLE}",
    ),
    "extract": (
        f"Copy all e-mail addresses from this list, one on each line:\n{CONTACTS}",
        f"Turn this list into JSON with name, email, phone and city:\n{CONTACTS}",
        f"Repeat this list exactly as it is:\n{CONTACTS}",
    ),
    "code edit": (
        f"Rename the variable total to running_sum and show the whole function:\n{CODE}",
        f"Add a docstring to this function and show all of it:\n{CODE}",
        f"Return 0 instead of None and show the whole function:\n{CODE}",
    ),
    "chat": (
        "I feel a bit lonely since I moved. What could I do at the weekend?",
        "Tell me something funny about cats.",
        "My sister turns thirty. Help me with a birthday message.",
    ),
    "question": (
        "Why is the sky blue?",
        "How do vaccines work?",
        "What is the difference between weather and climate?",
    ),
}


def _read(name: str) -> dict[str, tuple[str, ...]]:
    texts = tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return {group: tuple(prompts) for group, prompts in texts.items()}


HELD_OUT: Final = _read("held_out.toml")
TUNING: Final = {group: CLASSES[group] + more for group, more in _read("tuning.toml").items()}
