"""What a person can do about a request that was refused or failed: by its code, else status."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Advice:
    """What helps, and the page where it is done; `page` is empty where nothing here does."""

    words: str
    page: str = ""
    label: str = ""


AGAIN: Final = Advice("This passes by itself: send it again in a moment.")
REPEAT: Final = Advice(
    "Send it again. If it fails again, ask for another model.", "board", "Models"
)
_REQUEST: Final = Advice("Change the request as it says, and send it again.")
_MODEL: Final = Advice("Ask for a model that is sold here.", "board", "Models")
_KEY: Final = Advice("Use a key that is live and may do this, or make one.", "keys", "Keys")
_MONEY: Final = Advice(
    "Raise the budget that is named, add credit, or ask for fewer tokens.",
    "budgets",
    "Budgets",
)
_RATE: Final = Advice("Wait, or raise the limit that is named.", "budgets", "Budgets")
_HOUSE: Final = Advice("An operator of this house has to act; until then, ask for another model.")

BY_CODE: Final[Mapping[str, Advice]] = {
    "model_not_found": _MODEL,
    "unsupported_by_model": _MODEL,
    "unpriced": _MODEL,
    "model_not_allowed": Advice("Use a key that may call this model.", "keys", "Keys"),
    "offer_not_allowed": Advice("Let your routing use its sellers.", "routing", "Routing"),
    "over_budget": _MONEY,
    "over_max_cost": Advice("Raise the request's own ceiling, or ask for fewer tokens."),
    "exceeds_rate_limit": Advice("Raise the limit, or ask for less.", "budgets", "Budgets"),
    "missing_scope": _KEY,
    "tenant_suspended": Advice("Ask the operator of this house to lift the suspension."),
    "not_found": Advice("Check the address: its paths begin with /v1."),
    "upstream_credential_refused": _HOUSE,
    "upstream_model_not_found": _HOUSE,
}
BY_STATUS: Final[Mapping[int, Advice]] = {
    401: _KEY,
    402: _MONEY,
    403: _KEY,
    404: _MODEL,
    429: _RATE,
}


def on(status: int, code: str) -> Advice:
    found = BY_CODE.get(code) or BY_STATUS.get(status)
    return found or (AGAIN if status >= 500 else _REQUEST)
