"""Masked-diffusion language models: specs, streamed checkpoints, forward, noising."""
