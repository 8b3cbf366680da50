"""How dates are written, in every template and in the admin console; times are UTC."""
