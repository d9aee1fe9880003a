"""What rules are worth: what agents have used of what they allow, by the rules of now.

What was used is read from Envoy's recorder, which knows names, protocols and ports, but no rules. Which rule it
was is decided here, by the one policy. Nothing here changes a stack or a setting. `reading.py` comes first.
"""
