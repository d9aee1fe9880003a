"""What `diff` compares, layer by layer."""
