"""Edits of the rules in a settings file that keep its comments and its layout."""
