"""The comparisons of `diff`, one module per layer."""
