"""The attack suite's quick set, run against the user's own stack."""
