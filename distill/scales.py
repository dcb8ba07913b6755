"""Whether the terms of a loss are of comparable size. One that is far smaller than another is trained as if it were not there,
and no error says so."""

from collections.abc import Mapping, Sequence

APART = 100.0


def scale_warning(terms: Mapping[str, float], weights: Mapping[str, float], settings: Sequence[str]) -> str | None:
    """What to tell the user where two weighted terms of the loss are more than APART times apart, else None.

    `terms` are unweighted means, `settings` the names of the settings that weigh them. A term that is 0, or has no weight, is
    left out.
    """
    weighted = {name: abs(weights[name] * value) for name, value in terms.items() if weights[name] * value}
    if not weighted:
        return None
    small, large = min(weighted, key=weighted.__getitem__), max(weighted, key=weighted.__getitem__)
    if weighted[large] <= APART * weighted[small]:
        return None
    one, other = (f"{name} {weighted[name]:.3g} (weight {weights[name]:g} x {terms[name]:.3g})" for name in (small, large))
    flags = ", ".join(f"--{name}" for name in settings)
    return (f"two terms of the loss are {weighted[large] / weighted[small]:.0f} times apart: {one} and {other}; {small} may hardly "
            f"act. Look at their weights{f' ({flags})' if flags else ''}: comparable sizes are a sound start")
