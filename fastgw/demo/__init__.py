"""MCP servers to try the gateway on, each a process of its own, written on the official SDK.

Nothing in the gateway imports this package: it stands beside it, as anybody's servers would.
"""
