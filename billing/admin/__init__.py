from billing.admin import registered as registered
