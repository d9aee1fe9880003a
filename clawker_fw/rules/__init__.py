"""The rules: which names agents may reach, how rules are written, and the one policy that decides."""
