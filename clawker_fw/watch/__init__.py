"""The watcher, which keeps a stack current until it is stopped: when to compare, what to heal, what to report."""
