"""The Docker engine: reads from it and changes it, in the model's terms."""
