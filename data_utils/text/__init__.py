"""Packed text as rows, masked, in batches: what pre-training reads."""
