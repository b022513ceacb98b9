"""Ways of sharing out bits, one frozen dataclass per file."""
