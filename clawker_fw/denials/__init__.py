"""Refusals of agents: read from the logs of Envoy and CoreDNS, counted, and explained by the rules.

`usage.py` reads what agents used of the rules. Nothing here changes a stack, and everything comes from the engine.
Start with `reading.py`.
"""
