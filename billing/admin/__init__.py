from billing.admin import tenants as tenants
