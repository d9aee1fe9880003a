"""The output for users. Only this package imports `rich`. It renders values and decides nothing."""
