"""What agents were refused: read from the siblings' logs through the engine, counted, and explained by the rules.

In `usage.py`, what they have used of what rules allow. Nothing here changes a stack, and nothing but the engine is
asked. `reading.py` comes first.
"""
