"""What the user gets to see. Only this folder imports `rich`; it reads values and decides nothing."""
