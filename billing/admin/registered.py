"""Which page shows which of billing's tables."""

from typing import Final

from django.contrib import admin
from django.db.models import Model
from unfold.admin import ModelAdmin

from billing.admin.adjustments import AdjustmentNoteAdmin
from billing.admin.health import InvariantCheckAdmin, TaskRunAdmin
from billing.admin.invoices import (
    BillingProfileAdmin,
    CreditNoteAdmin,
    InvoiceAdmin,
    PaymentAdmin,
    PayoutAdmin,
)
from billing.admin.ledger import AccountAdmin, EntryAdmin, TransferAdmin
from billing.admin.limits import CreditAlertAdmin
from billing.admin.plans import PlanAssignmentAdmin
from billing.admin.price_lists import (
    PriceDisagreementAdmin,
    PriceListAdmin,
    PriceProposalAdmin,
    PriceRuleAdmin,
)
from billing.admin.prices import PriceVersionAdmin, ReRatingAdmin
from billing.admin.processor import DisputeAdmin, ProcessorEventAdmin
from billing.admin.purchases import TopUpAdmin
from billing.admin.rebates import RebateScaleAdmin, VolumeRebateAdmin
from billing.admin.reviews.claims import ClaimAdmin
from billing.admin.reviews.findings import FindingAdmin
from billing.admin.reviews.refused_settles import RefusedSettleAdmin
from billing.admin.tenants import CreditGrantAdmin, TenantAdmin
from billing.admin.usage_events import UsageEventAdmin
from billing.models import (
    Account,
    AdjustmentNote,
    BillingProfile,
    Claim,
    CreditAlert,
    CreditGrant,
    CreditNote,
    Dispute,
    Entry,
    Finding,
    InvariantCheck,
    Invoice,
    Payment,
    Payout,
    PlanAssignment,
    PriceDisagreement,
    PriceList,
    PriceProposal,
    PriceRule,
    PriceVersion,
    ProcessorEvent,
    RebateScale,
    RefusedSettle,
    ReRating,
    TaskRun,
    Tenant,
    TopUp,
    Transfer,
    UsageEvent,
    VolumeRebate,
)

PAGES: Final[dict[type[Model], type[ModelAdmin]]] = {
    Tenant: TenantAdmin,
    CreditGrant: CreditGrantAdmin,
    CreditAlert: CreditAlertAdmin,
    PlanAssignment: PlanAssignmentAdmin,
    PriceVersion: PriceVersionAdmin,
    PriceList: PriceListAdmin,
    PriceRule: PriceRuleAdmin,
    PriceProposal: PriceProposalAdmin,
    PriceDisagreement: PriceDisagreementAdmin,
    ReRating: ReRatingAdmin,
    RebateScale: RebateScaleAdmin,
    VolumeRebate: VolumeRebateAdmin,
    Account: AccountAdmin,
    Transfer: TransferAdmin,
    Entry: EntryAdmin,
    UsageEvent: UsageEventAdmin,
    RefusedSettle: RefusedSettleAdmin,
    Claim: ClaimAdmin,
    Finding: FindingAdmin,
    Invoice: InvoiceAdmin,
    BillingProfile: BillingProfileAdmin,
    AdjustmentNote: AdjustmentNoteAdmin,
    CreditNote: CreditNoteAdmin,
    Payment: PaymentAdmin,
    TopUp: TopUpAdmin,
    Payout: PayoutAdmin,
    Dispute: DisputeAdmin,
    ProcessorEvent: ProcessorEventAdmin,
    InvariantCheck: InvariantCheckAdmin,
    TaskRun: TaskRunAdmin,
}

for model, page in PAGES.items():
    admin.site.register(model, page)
