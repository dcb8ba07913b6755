"""Progress bars with rate and time left; nothing where the output is not a terminal."""

import sys

from tqdm import tqdm

from distill import workers


def bar(total: int, what: str, unit: str, done: int = 0) -> tqdm:
    """A bar on stderr; silent off a terminal and on ranks other than 0."""
    return tqdm(total=total, initial=done, desc=what, unit=unit, dynamic_ncols=True,
                disable=not (sys.stderr.isatty() and workers.is_main()))
