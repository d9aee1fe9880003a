"""The command line. Each command imports its heavy dependencies itself, to make `--help` and completion quick."""
