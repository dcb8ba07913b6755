"""Sense dictionaries: the teacher's hidden states, clustered per vocabulary type (arXiv 2504.06036)."""
