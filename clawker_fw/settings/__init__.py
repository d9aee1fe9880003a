"""Settings: their sources, their validation, and the edits of the file's rules."""
