"""An egress firewall for containers on a Docker host, kept provably current."""
