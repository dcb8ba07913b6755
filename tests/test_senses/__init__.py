"""Sense dictionaries: building, sampling, agreement with the truth."""
