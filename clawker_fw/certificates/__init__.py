"""Certificates for telemetry and for inspected TLS: made, kept, judged and renewed."""
