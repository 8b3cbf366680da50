"""The providers' tables, one file per concept; import them from here."""

from providers.models.catalogue import Model, Offer, Provider
from providers.models.credentials import Credential
from providers.models.measurements import (
    CountedTexts,
    HomeBoard,
    Leaderboard,
    MeasurementCursor,
    MeasurementRollup,
)
from providers.models.price_sources import PriceSource
from providers.models.workers import Worker, WorkerKey

__all__ = [
    "CountedTexts",
    "Credential",
    "HomeBoard",
    "Leaderboard",
    "MeasurementCursor",
    "MeasurementRollup",
    "Model",
    "Offer",
    "PriceSource",
    "Provider",
    "Worker",
    "WorkerKey",
]
