"""What Envoy puts into requests, so that agents hold no key: declared in the user's own file, obtained here."""
