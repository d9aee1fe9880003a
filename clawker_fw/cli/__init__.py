"""The command line: options in, one pipeline, an answer and an exit code out.

Each command imports its heavy dependencies itself, so that `--help` and completion are quick.
"""
