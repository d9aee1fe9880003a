"""How a stack is kept current until somebody stops it: when to look, what to heal, whom to tell."""
