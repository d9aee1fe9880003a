"""The program itself as an image: what is installed here, for a container with the engine's socket."""
