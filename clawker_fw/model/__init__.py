"""The values that the five verbs pass to each other, a module for each subject.

They are frozen and comparable, and make no decisions. I/O, rendering and comparisons don't belong here.
"""
