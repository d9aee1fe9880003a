"""Secrets that Envoy puts into requests, so that agents hold no keys: their declaration and their sources."""
