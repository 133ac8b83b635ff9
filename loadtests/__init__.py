"""Load tests: many agents of both eras at once, every answer checked, latencies within budgets.

Knows: Locust, loopback. Refuses to know: how the gateway is built. Costs are measured in `bench`, not here.
"""
