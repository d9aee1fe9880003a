"""The firewall itself: all code that decides what the siblings are made of.

`stack_build_sha` is the digest of this folder and the built programs, so nothing else may influence
a sibling.
"""
