"""The reconciler: observe, desired, diff, plan, apply. One verb, one module."""
