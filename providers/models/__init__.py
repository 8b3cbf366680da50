"""The providers' tables, one file per concept; import them from here."""

from providers.models.catalogue import Model, Offer, Provider
from providers.models.credentials import Credential
from providers.models.measurements import Leaderboard, MeasurementRollup
from providers.models.workers import Worker, WorkerKey

__all__ = [
    "Credential",
    "Leaderboard",
    "MeasurementRollup",
    "Model",
    "Offer",
    "Provider",
    "Worker",
    "WorkerKey",
]
