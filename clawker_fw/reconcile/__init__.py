"""How the firewall is kept current: observe, desired, diff, plan, apply. One verb, one module."""
