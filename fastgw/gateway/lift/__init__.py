"""The lift: whatever revision an agent speaks becomes a `Call`, and every answer goes back in that revision.

Only here, in the lower and in `mcp/` does the word legacy exist.
"""
