"""Agents: attaching them, checking their confinement, and finding their names."""
