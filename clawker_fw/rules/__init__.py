"""The rules: which names agents may reach, how they are written, and the one place that decides."""
