"""The definition of the firewall. `stack_build_sha` is the digest of this folder, its imports and the programs."""
