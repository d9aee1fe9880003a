"""The proxy sibling: its container and bootstrap, its listeners, and its one table of routes."""
