"""Programs that people use, as agents, and the servers that they are made for: one image with all of them."""
