"""What the language of rules has, and a stack can't do yet: one place to open it."""

INSPECTION_FIELDS = ("inspect", "path_rules", "path_default", "insecure_skip_tls_verify", "git", "lfs", "inject")
"""The fields of a rule for a host whose TLS is looked into."""

LATER_FIELDS: tuple[str, ...] = ("inject",)
"""Fields that are an error until the stack does what they say. Empty, all that is made for them can be used."""
