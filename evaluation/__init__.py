"""Likelihood, sampling, the lm-eval bridge and paired statistics."""
