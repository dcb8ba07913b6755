"""Which pieces share a row: best fit, the longest first, worked on the histogram of their sizes."""

import numpy as np


def pack_rows(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(bounds [R + 1], members [P]) int64: row r holds the pieces members[bounds[r] : bounds[r + 1]], together at most `length`.

    sizes [P], each of 1..length. The longest piece that is left goes to the row with the least room that it fits into, a new one where
    there is none: a function of `sizes` alone. Rows that are alike are filled together, so that time grows with `length`, hardly with P.
    Source: longest-pack-first histogram packing (Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination").
    """
    kinds = _kinds_of_rows(np.bincount(sizes, minlength=length + 1), length)
    queue, taken = np.argsort(sizes, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(sizes, minlength=length + 1))])
    blocks, widths = [], []
    for held, rows in kinds:
        columns = []
        for size, times in held:
            columns.append(queue[taken[size]:taken[size] + rows * times].reshape(rows, times))
            taken[size] += rows * times
        block = np.concatenate(columns, 1)
        blocks.append(block.reshape(-1))
        widths.append(np.full(rows, block.shape[1]))
    return np.concatenate([[0], np.cumsum(np.concatenate(widths))]), np.concatenate(blocks)


def _kinds_of_rows(counts: np.ndarray, length: int) -> list[tuple[tuple[tuple[int, int], ...], int]]:
    """((size, times), ...) of a kind of row, and how many rows are so, for counts[size] pieces of each size."""
    with_room: dict[int, list] = {length: [((), int(counts.sum()))]}  # room -> kinds; the empty row, as often as needed
    for size in range(length, 0, -1):
        left = int(counts[size])
        for room in range(size, length + 1):
            while left and with_room.get(room):
                held, rows = with_room[room].pop()
                left = _fill(with_room, held, rows, room, size, left)
    return [kind for room, kinds in with_room.items() if room < length for kind in kinds]


def _fill(with_room: dict[int, list], held: tuple, rows: int, room: int, size: int, left: int) -> int:
    """Put pieces of `size` into `rows` rows that hold `held` and have `room`, as many into each as fit; returns how many are left."""
    each = room // size
    full = min(rows, left // each)
    over = left - full * each if full < rows else 0  # for one row more
    for number, times in ((full, each), (int(over > 0), over), (rows - full - (over > 0), 0)):
        if number:
            kind = held + ((size, times),) if times else held
            with_room.setdefault(room - size * times, []).append((kind, number))
    return left - full * each - over
