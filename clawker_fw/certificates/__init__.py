"""Certificates for telemetry: made, kept, judged and renewed."""
