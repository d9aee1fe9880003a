"""What a stack answers about itself: why a connection is allowed or refused, what is wrong, whether it holds."""
