"""Billing's tables, one file per concept; import them from here."""

from billing.models.alerts import AlertChannel, AlertDelivery, BudgetAlert
from billing.models.audit_entries import AuditEntry
from billing.models.call_profiles import CallCount, CallMark, CallProfile
from billing.models.claims import Claim
from billing.models.credit_alerts import CreditAlert, CreditThreshold
from billing.models.integrity.row_seals import Finding, RowSeal
from billing.models.integrity.row_versions import RowVersion
from billing.models.integrity.seals import EntrySeal, EventSeal
from billing.models.invoicing.adjustment_notes import AdjustmentNote
from billing.models.invoicing.covered_spans import CoveredSpan
from billing.models.invoicing.invoices import (
    BillingProfile,
    CreditNote,
    Invoice,
    InvoiceLine,
    NumberSeries,
    Payment,
)
from billing.models.invoicing.untaxed_credit import UntaxedCredit
from billing.models.ledger import Account, Entry, Transfer
from billing.models.operations import InvariantCheck, ShardEpoch, TaskRun
from billing.models.payments import Dispute, ProcessorEvent, Receipt, Recharge, Refund, TopUp
from billing.models.payouts import Payout
from billing.models.prices.proposals import PriceDisagreement, PriceProposal
from billing.models.prices.rebates import RebateScale, VolumeRebate
from billing.models.prices.rerating import Adjustment, ReRating
from billing.models.prices.versions import (
    PlanAssignment,
    PriceList,
    PriceRule,
    PriceVersion,
    Sku,
)
from billing.models.provider_bills import BillRate, ProviderBill, ProviderBillRow
from billing.models.quotas import MadeKey, Quota, RateLimit, RevokedKey, ScopeKind
from billing.models.refused_settles import RefusedSettle
from billing.models.rollups import AccountSum, EarnedDay, UsageDay, UsageHour, UsageSession
from billing.models.tenants import CreditGrant, GrantUse, Tenant
from billing.models.true_ups import TrueUp
from billing.models.usage_events import UsageEvent

__all__ = [
    "AdjustmentNote",
    "AlertChannel",
    "AlertDelivery",
    "BillRate",
    "BudgetAlert",
    "Account",
    "Adjustment",
    "AccountSum",
    "AuditEntry",
    "BillingProfile",
    "CallCount",
    "CallMark",
    "CallProfile",
    "Claim",
    "CreditAlert",
    "CoveredSpan",
    "CreditGrant",
    "CreditNote",
    "CreditThreshold",
    "Dispute",
    "Entry",
    "EntrySeal",
    "EventSeal",
    "EarnedDay",
    "Finding",
    "GrantUse",
    "InvariantCheck",
    "Invoice",
    "InvoiceLine",
    "MadeKey",
    "NumberSeries",
    "Payment",
    "Payout",
    "PlanAssignment",
    "PriceDisagreement",
    "PriceList",
    "PriceProposal",
    "PriceRule",
    "PriceVersion",
    "ProcessorEvent",
    "ProviderBill",
    "ProviderBillRow",
    "Quota",
    "RateLimit",
    "ReRating",
    "RebateScale",
    "Receipt",
    "Recharge",
    "Refund",
    "RefusedSettle",
    "RevokedKey",
    "ScopeKind",
    "RowSeal",
    "RowVersion",
    "ShardEpoch",
    "Sku",
    "TaskRun",
    "Tenant",
    "TopUp",
    "Transfer",
    "TrueUp",
    "UntaxedCredit",
    "UsageDay",
    "UsageEvent",
    "UsageHour",
    "UsageSession",
    "VolumeRebate",
]
