"""Many hosts: finds them, and asks all of them in parallel.

`report` interprets their answers. Nothing here changes an engine.
"""
