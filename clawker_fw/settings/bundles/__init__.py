"""Rules from a registry: bundles are pulled, verified, kept, pushed and promoted."""
