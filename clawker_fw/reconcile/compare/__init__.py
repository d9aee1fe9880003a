"""The comparisons of `diff`, one module for each layer."""
