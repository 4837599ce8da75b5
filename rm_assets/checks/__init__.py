"""Asset checks: what must hold of each asset, read from its manifest and its tables."""
