"""Edits of the rules in a settings file, which keep its comments and its layout."""
