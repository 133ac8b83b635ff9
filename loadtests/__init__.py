"""Load tests: many agents of both eras at once, every answer checked, latency within a budget.

Knows: Locust, loopback. Refuses to know: how the gateway is built. Costs are measured in `bench`, not here.
"""
