"""What the firewall is: everything that decides what the siblings are made of.

This folder, the templates and the built binaries are the subset that `stack_build_sha` is taken over, so
nothing outside them may influence a sibling.
"""
