"""Ways of turning weights into integer codes, one frozen dataclass per file."""
