"""Many hosts: which there are (`hosts.py`, `swarm.py`), and how all are asked at the same time (`asking.py`).

It finds hosts and asks; `report` says what their answers mean. Nothing here changes anything on an engine.
"""
