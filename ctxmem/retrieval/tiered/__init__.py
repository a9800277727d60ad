"""Search in more vectors than memory should hold, exact and with lookahead; see `index`, `certify` and `lookahead`."""
