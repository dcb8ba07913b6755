"""Encoders, their heads, and the checkpoints they are read from."""
