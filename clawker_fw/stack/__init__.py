"""The definition of the firewall: `stack_build_sha` covers this folder, its imports, templates and programs."""
