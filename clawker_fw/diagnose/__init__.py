"""Diagnosis of a stack: explanations of decisions, health checks, and the conformance test."""
