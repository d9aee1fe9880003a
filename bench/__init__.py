"""The figures the project promises, each measured as a ratio or a count in one run."""
