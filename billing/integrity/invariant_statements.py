"""The ledger's promises as SQL: each statement finds violations, and an empty answer is a promise
kept. Of rows, of sums, and of sums against rows.
"""

from typing import Final

# Of rows: {which} says of which transfers t, or events u. Of those written since a time for the
# continuous check, of those in a block of ids for the audit. The first column is the row's id.
OF_TRANSFERS: Final = {
    "entries of a transfer sum to zero": """
        SELECT t.id, sum(e.amount_pico) FROM billing_transfer t
        LEFT JOIN billing_entry e ON e.transfer_id = t.id
        WHERE {which} GROUP BY t.id
        HAVING count(e.id) < 2 OR sum(e.amount_pico) <> 0
    """,
    "events of a transfer equal what it posted": """
        SELECT t.id, coalesce(u.paid, 0), coalesce(e.paid, 0) FROM billing_transfer t
        LEFT JOIN LATERAL (
            SELECT sum(tenant_cost_pico) AS paid, sum(supplier_cost_pico) AS supplied,
                sum(overage_pico) AS over
            FROM billing_usageevent WHERE transfer_id = t.id
        ) u ON true
        LEFT JOIN LATERAL (
            SELECT sum(amount_pico) FILTER (WHERE a.kind = 'tenant_credit') AS paid,
                sum(amount_pico) FILTER (
                    WHERE a.kind IN ('cost_of_sales', 'provider_waste')) AS supplied,
                sum(amount_pico) FILTER (WHERE a.kind = 'overage_review') AS over
            FROM billing_entry JOIN billing_account a ON a.id = account_id
            WHERE transfer_id = t.id
        ) e ON true
        WHERE t.code = 'usage' AND {which}
            AND (coalesce(u.paid, 0) <> coalesce(e.paid, 0)
                OR coalesce(u.supplied, 0) <> coalesce(e.supplied, 0)
                OR coalesce(u.over, 0) <> coalesce(e.over, 0))
    """,
}
OF_EVENTS: Final = {
    "each posted event is in exactly one transfer": """
        SELECT u.id, u.transfer_id FROM billing_usageevent u
        LEFT JOIN billing_transfer t ON t.id = u.transfer_id
        WHERE {which} AND (
            (u.state = 'posted' AND (t.id IS NULL OR t.code <> 'usage'
                OR t.tenant_id <> u.tenant_id))
            OR (u.state = 'quarantined' AND t.id IS NOT NULL))
    """,
    "each expiry of an attempt is told once": """
        SELECT u.id, u.request_id, count(*) FROM billing_usageevent u
        JOIN billing_usageevent other ON other.request_id = u.request_id AND other.attempt < 0
        WHERE u.attempt < 0 AND {which} GROUP BY u.id HAVING count(*) > 1
    """,
}
# Of everything, by its sums: the cost grows with tenants, keys, offers and days. What the events
# come to and what was posted for them are summed by different triggers, from different tables.
OF_SUMS: Final = {
    "all entries together are zero": """
        SELECT sum(amount_pico) FROM billing_accountsum HAVING sum(amount_pico) <> 0
    """,
    "events of a tenant equal what it was posted": """
        SELECT tenant_id, used.cost, posted.cost, used.overage, posted.overage FROM (
            SELECT tenant_id, sum(cost_pico) AS cost, sum(overage_pico) AS overage
            FROM billing_usageday GROUP BY tenant_id
        ) used FULL JOIN (
            SELECT s.tenant_id,
                coalesce(sum(amount_pico) FILTER (WHERE a.kind = 'tenant_credit'), 0) AS cost,
                coalesce(sum(amount_pico) FILTER (WHERE a.kind = 'overage_review'), 0) AS overage
            FROM billing_accountsum s JOIN billing_account a ON a.id = s.account_id
            WHERE s.code = 'usage' GROUP BY s.tenant_id
        ) posted USING (tenant_id)
        WHERE coalesce(used.cost, 0) <> coalesce(posted.cost, 0)
            OR coalesce(used.overage, 0) <> coalesce(posted.overage, 0) LIMIT 5
    """,
    "events of a supplier equal what it was posted": """
        SELECT supplier, used.cost, posted.cost FROM (
            SELECT supplier, sum(supplier_cost_pico) AS cost FROM billing_usageday GROUP BY supplier
        ) used FULL JOIN (
            SELECT a.supplier, sum(amount_pico) AS cost
            FROM billing_accountsum s JOIN billing_account a ON a.id = s.account_id
            WHERE s.code = 'usage' AND a.kind IN ('cost_of_sales', 'provider_waste')
            GROUP BY a.supplier
        ) posted USING (supplier)
        WHERE coalesce(used.cost, 0) <> coalesce(posted.cost, 0) LIMIT 5
    """,
    # A settle that Redis refused: waiting for a person, or told again and not drained since.
    "what was told is booked": """
        SELECT request_id, charge_pico, reason FROM billing_refusedsettle r
        WHERE state = 'waiting' OR (
            state = 'booked' AND charge_pico > 0
            AND resolved_at < now() - interval '5 minutes'
            AND resolved_at > now() - interval '7 days'
            AND NOT EXISTS (
                SELECT 1 FROM billing_usageevent u WHERE u.request_id = r.request_id))
        ORDER BY settled_at LIMIT 5
    """,
    "what is earned by day equals sums by day": """
        SELECT tenant_id, earned.cost, used.cost, earned.supplied, used.supplied FROM (
            SELECT tenant_id, sum(cost_pico) AS cost, sum(supplier_cost_pico) AS supplied
            FROM billing_earnedday GROUP BY tenant_id
        ) earned FULL JOIN (
            SELECT tenant_id, sum(cost_pico) AS cost, sum(supplier_cost_pico) AS supplied
            FROM billing_usageday GROUP BY tenant_id
        ) used USING (tenant_id)
        WHERE coalesce(earned.cost, 0) <> coalesce(used.cost, 0)
            OR coalesce(earned.supplied, 0) <> coalesce(used.supplied, 0) LIMIT 5
    """,
    "sums by hour equal sums by day": """
        SELECT tenant_id, h.*, d.* FROM (
            SELECT tenant_id, sum(attempts), sum(requests), sum(cost_pico), sum(input_tokens),
                sum(cache_read_tokens), sum(output_tokens)
            FROM billing_usagehour GROUP BY tenant_id
        ) AS h (tenant_id, attempts, requests, cost, input, cached, output) FULL JOIN (
            SELECT tenant_id, sum(attempts), sum(requests), sum(cost_pico), sum(input_tokens),
                sum(cache_read_tokens), sum(output_tokens)
            FROM billing_usageday GROUP BY tenant_id
        ) AS d (tenant_id, attempts, requests, cost, input, cached, output) USING (tenant_id)
        WHERE (h.attempts, h.requests, h.cost, h.input, h.cached, h.output)
            IS DISTINCT FROM (d.attempts, d.requests, d.cost, d.input, d.cached, d.output) LIMIT 5
    """,
}
