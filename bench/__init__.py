"""Benchmarks: what a call through the gateway costs, as a ratio to a reference measured in the same run.

What is measured from outside imports nothing of `fastgw`, so that a mistake in one does not hide the same mistake in
the other; what cannot be told apart from outside does.
"""
