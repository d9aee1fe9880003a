"""Certificates for telemetry and TLS inspection: created, stored, verified and renewed."""
