"""Many hosts: which there are, how all are asked at the same time, and what each node of a swarm gets.

It finds hosts and asks; `report` says what their answers mean. Nothing here changes anything on an engine.
"""
