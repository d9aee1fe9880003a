"""The outside: what we read from and write to a Docker engine, in our words."""
