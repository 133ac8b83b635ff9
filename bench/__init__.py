"""Benchmarks: what a call through the gateway costs, as a ratio to a reference measured in the same run.

Knows: MCP as it looks from outside, processes, sockets. Refuses to know: how the gateway is built; nothing of `fastgw`
is imported here (but by `bench.compile`, which times parts that cannot be told apart from outside), and nothing here by
it, so that a mistake in one does not hide the same mistake in the other.
"""
