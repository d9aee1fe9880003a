"""The rules: their syntax in the settings, their canonical form, and the policy that decides by them."""
