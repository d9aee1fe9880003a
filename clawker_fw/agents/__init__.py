"""Agents: how they are attached, whether they are confined, and what they are called."""
