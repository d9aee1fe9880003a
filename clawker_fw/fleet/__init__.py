"""Many hosts: which there are, and how all are asked at the same time.

It finds hosts and asks; `report` says what their answers mean. Nothing here changes anything on an engine.
"""
