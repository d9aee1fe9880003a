"""The client of `fwctl`, the helper in our containers."""
