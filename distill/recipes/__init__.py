"""The methods: one file each, found by its name."""

import difflib
import importlib
import pkgutil


def names() -> list[str]:
    """The recipes there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str):
    """The recipe module `name`; ValueError with the nearest and the list for an unknown one."""
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), 1, 0)
        raise ValueError(f"unknown recipe {name!r}: did you mean {nearest[0]}? There are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
