"""Programs that people use, as agents, and the servers that they are made for: one image with all of them.

`image.py` makes the image from Debian's packages, `site.py` has its servers in a simulated internet.
"""
