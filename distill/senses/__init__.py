"""Sense dictionaries: the teacher's hidden states, clustered per vocabulary type (arXiv 2504.06036)."""

from collections.abc import Mapping

READINGS = {"continuous": "continuous states", "senses": "chosen senses"}  # what a head reads, as `evaluate --output` says it


def similarity_of(provenance: Mapping[str, str]) -> str:
    """How the senses of a dictionary with this provenance are chosen: published ones, which do not say it, mean the dot product."""
    return provenance.get("similarity", "dot")
