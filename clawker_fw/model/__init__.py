"""The values that the five verbs pass to each other, one module per subject.

They are frozen and comparable. They make no decisions and do no I/O, rendering or comparisons.
"""
