"""The in-memory engine."""
