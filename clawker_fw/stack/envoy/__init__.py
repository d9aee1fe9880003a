"""The proxy sibling: its container and bootstrap, its listeners, and its table of routes."""
