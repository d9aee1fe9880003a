"""The attack suite's quick set, against the user's own stack: what is tried, and how it is performed."""
