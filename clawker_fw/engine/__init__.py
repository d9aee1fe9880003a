"""The Docker engine: everything that is read from it and written to it, translated into the model's terms."""
