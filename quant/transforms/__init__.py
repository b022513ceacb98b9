"""Invertible changes of the input coordinates of a linear layer, one frozen dataclass per file."""
