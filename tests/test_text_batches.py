"""Rows, masks and batches of text: what they hold to the token, and that they are functions of seed and position."""

import math

import numpy as np
import pytest
import torch

from data_utils.text.batches import TextStream, fixed_batches
from data_utils.text.masking import IGNORED, Masking
from data_utils.text.packing import pack_rows
from data_utils.text.rows import lay_out
from tests.corpora import FIRST_WORD, SPECIAL, made_up

LAYOUTS = ("blocks", "packed", "padded")
VOCABULARY = 4000
PAD, CLS, SEP, MASK = (SPECIAL[name] for name in ("pad", "cls", "sep", "mask"))


def masking(counts=None, **changed) -> Masking:
    return Masking(SPECIAL["all"], MASK, VOCABULARY, counts, **changed)


@pytest.fixture(scope="module")
def corpus():
    """60 documents of 1 to 90 tokens, 2 of 16 - 2 and one of 400, no two tokens alike."""
    corpus = made_up([*np.random.default_rng(0).integers(1, 90, 60).tolist(), 14, 400, 14], VOCABULARY)
    assert corpus.tokens < VOCABULARY - FIRST_WORD
    return corpus


def stream(corpus, layout="packed", seed=1, batch_size=8, length=16, documents=None, **changed) -> TextStream:
    documents = np.arange(corpus.documents) if documents is None else documents
    return TextStream(corpus, documents, layout, length, batch_size, seed, masking(**changed))


def original(batch) -> torch.Tensor:
    """The ids before they were masked."""
    return torch.where(batch.target == IGNORED, batch.input_ids, batch.target)


def same(first, second) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip((first.uid, *first._wide), (second.uid, *second._wide), strict=True))


def rows_of(batches) -> dict[int, tuple]:
    """Every row by its number, padding cut off."""
    return {int(batch.uid[row]): tuple(None if tensor is None else tensor[row, :length].tolist() for tensor in batch._wide)
            for batch in batches for row, length in enumerate(batch.attention_mask.sum(1))}


# ---- rows

def test_blocks_cut_one_stream_with_a_separator_between_documents():
    corpus = made_up([3, 7, 9])
    (a, b, c), rows = (corpus.ids[start:end].tolist() for start, end in ((0, 3), (3, 10), (10, 19))), lay_out(corpus, np.arange(3), "blocks", 8)
    read = rows.read(np.arange(4))
    assert read.ids.tolist() == [[CLS, *a, SEP, *b[:2], SEP], [CLS, *b[2:], SEP, SEP], [CLS, *c[:6], SEP], [CLS, *c[6:], SEP, PAD, PAD, PAD]]
    assert read.real.sum(1).tolist() == rows.sizes.tolist() == [8, 8, 8, 5] and read.positions is read.pieces is None
    assert lay_out(corpus, np.array([2, 0]), "blocks", 8).read(np.array([1])).ids.tolist() == [[CLS, *c[6:], SEP, *a[:2], SEP]]


def test_padded_rows_are_the_pieces_of_the_documents():
    corpus = made_up([3, 7, 13])
    a, b, c = (corpus.ids[start:end].tolist() for start, end in ((0, 3), (3, 10), (10, 23)))
    rows = lay_out(corpus, np.arange(3), "padded", 8)
    assert rows.sizes.tolist() == [5, 8, 3, 8, 8, 3]
    assert rows.read(np.arange(6)).ids.tolist() == [[CLS, *a, SEP, PAD, PAD, PAD], [CLS, *b[:6], SEP], [CLS, b[6], SEP, *[PAD] * 5],
                                                    [CLS, *c[:6], SEP], [CLS, *c[6:12], SEP], [CLS, c[12], SEP, *[PAD] * 5]]
    short = rows.read(np.array([2, 0]))
    assert short.ids.shape == (2, 5) and short.positions is short.pieces is None


def test_packed_rows_hold_whole_pieces_that_are_numbered_and_counted_from_0():
    corpus = made_up([3, 7, 2])
    a, b, c = (corpus.ids[start:end].tolist() for start, end in ((0, 3), (3, 10), (10, 12)))
    rows = lay_out(corpus, np.arange(3), "packed", 10)
    assert rows.sizes.tolist() == [9, 9]
    read = rows.read(np.array([0, 1]))
    assert read.ids.tolist() == [[CLS, *b, SEP], [CLS, *a, SEP, CLS, *c, SEP]]
    assert read.positions.tolist() == [list(range(9)), [0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert read.pieces.tolist() == [[1] * 9, [1] * 5 + [2] * 4]
    assert rows.read(np.array([1, 1])).ids.tolist() == [[CLS, *a, SEP, CLS, *c, SEP]] * 2


@pytest.mark.parametrize("length", [8, 16, 33, 512])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_token_of_the_documents_comes_once_in_an_epoch(layout, length, corpus):
    documents = np.flatnonzero(np.arange(corpus.documents) % 5)
    expected = np.concatenate([corpus.ids[corpus.offsets[document]:corpus.offsets[document + 1]] for document in documents])
    source = stream(corpus, layout, length=length, documents=documents)
    for _ in range(2):
        found = torch.cat([original(batch)[batch.attention_mask.bool()] for batch in (source.next() for _ in range(source.steps_per_epoch))])
        assert sorted(found[found >= FIRST_WORD].tolist()) == expected.tolist()


def test_packed_pieces_are_whole_runs_of_one_document(corpus):
    document = dict(zip(corpus.ids.tolist(), np.repeat(np.arange(corpus.documents), np.diff(corpus.offsets)).tolist()))
    source = stream(corpus, length=32)
    for batch in (source.next() for _ in range(source.steps_per_epoch)):
        ids, real = original(batch), batch.attention_mask.bool()
        assert torch.equal(real, batch.pieces > 0) and not batch.position_ids[~real].any() and (ids[~real] == PAD).all()
        for row in range(len(batch)):
            numbers = batch.pieces[row][real[row]]
            assert numbers.tolist() == sorted(numbers.tolist()) and set(numbers.tolist()) == set(range(1, int(numbers.max()) + 1))
            for number in range(1, int(numbers.max()) + 1):
                inside = batch.pieces[row] == number
                piece = ids[row][inside].tolist()
                assert batch.position_ids[row][inside].tolist() == list(range(len(piece)))
                assert piece[0] == CLS and piece[-1] == SEP and piece[1:-1] == list(range(piece[1], piece[1] + len(piece) - 2))
                assert len({document[token] for token in piece[1:-1]}) == 1


def greedy(sizes: list[int], length: int) -> int:
    """Rows that best fit needs, piece by piece."""
    room: list[int] = []
    for size in sorted(sizes, reverse=True):
        fits = [index for index, left in enumerate(room) if left >= size]
        place = min(fits, key=lambda index: room[index], default=None)
        if place is None:
            room.append(length - size)
        else:
            room[place] -= size
    return len(room)


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_best_fit_decreasing_and_loses_no_piece(seed):
    draw = np.random.default_rng(seed)
    length = int(draw.integers(8, 200))
    sizes = draw.integers(3, draw.integers(4, length + 2), draw.integers(1, 400))
    bounds, members = pack_rows(sizes, length)
    held = np.add.reduceat(sizes[members], bounds[:-1])
    assert sorted(members.tolist()) == list(range(len(sizes))) and held.max() <= length and bounds[-1] == len(sizes)
    assert len(held) == greedy(sizes.tolist(), length)


def test_mistakes_in_layout_are_refused(corpus):
    for changed, message in (({"layout": "block"}, "unknown layout 'block': did you mean blocks"), ({"length": 3}, "rows of 3 tokens: expected at least 8"),
                             ({"documents": np.array([], int)}, "no document")):
        with pytest.raises(ValueError, match=message):
            stream(corpus, **changed)


# ---- masks

@pytest.mark.parametrize("probability", [0.15, 0.4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_batch_has_exactly_its_share_of_masks_and_labels_nowhere_else(layout, probability, corpus):
    source, plain = stream(corpus, layout, probability=probability), lay_out(corpus, np.arange(corpus.documents), layout, 16)
    for batch in (source.next() for _ in range(source.steps_per_epoch)):
        read = plain.read(batch.uid.numpy())
        words = int((read.ids[read.real] >= FIRST_WORD).sum())
        assert batch.masked == math.ceil(round(probability * words, 6)) == (batch.target != IGNORED).sum()
        assert torch.equal(original(batch), torch.from_numpy(read.ids)) and torch.equal(batch.attention_mask.bool(), torch.from_numpy(read.real))
        assert (batch.target[batch.target != IGNORED] >= FIRST_WORD).all() and not batch.token_type_ids.any()
        changed = batch.input_ids != torch.from_numpy(read.ids)
        assert (batch.target[changed] != IGNORED).all() and (batch.input_ids[changed] != PAD).all()


def test_a_whole_number_of_masks_is_not_rounded_up():
    for words in (20, 140, 1000, 1020):
        ids = np.full((1, words), FIRST_WORD)
        assert (masking().apply(ids, ids > 0, np.random.default_rng(0))[1] != IGNORED).sum() == words * 15 // 100


def test_of_the_chosen_80_in_100_are_masked_10_strange_and_10_kept():
    ids = np.random.default_rng(0).integers(FIRST_WORD, VOCABULARY, (400, 500))
    shown, target = masking().apply(ids, np.ones_like(ids, bool), np.random.default_rng(1))
    chosen = target != IGNORED
    masks, kept = shown[chosen] == MASK, shown[chosen] == ids[chosen]
    assert abs(masks.mean() - 0.8) < 0.01 and abs(kept.mean() - 0.1) < 0.007
    strange = shown[chosen][~masks & ~kept]
    assert strange.min() >= FIRST_WORD and len(np.unique(strange)) > 1000
    assert (shown[~chosen] == ids[~chosen]).all() and (target[chosen] == ids[chosen]).all()
    assert abs(chosen.mean(0) - 0.15).max() < 0.1, "some places are preferred"


def test_smoothed_masks_prefer_rare_tokens_by_the_power_of_their_counts():
    common, rare, new = FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 2
    counts = np.ones(VOCABULARY, np.int64)
    counts[common], counts[rare], counts[new] = 10_000, 100, 0
    ids = np.array([[common] * 60_000 + [rare] * 6_000 + [new] * 20])
    _, target = masking(counts, probability=0.01).apply(ids, np.ones_like(ids, bool), np.random.default_rng(0))
    chosen = np.bincount(target[target != IGNORED], minlength=10)
    assert chosen[rare] / 6_000 / (chosen[common] / 60_000) == pytest.approx(100 ** 0.7, rel=0.15) and chosen[new] > 10
    _, target = masking(counts, probability=0.01, smoothing=0.0).apply(ids, np.ones_like(ids, bool), np.random.default_rng(0))
    assert np.bincount(target[target != IGNORED])[rare] == pytest.approx(60, abs=25)


def test_masks_are_refused_that_cannot_be():
    with pytest.raises(ValueError, match="1.5 of the tokens masked: expected a share below 1"):
        masking(probability=1.5)
    with pytest.raises(ValueError, match="counts of 3 tokens for a vocabulary of 4000"):
        masking(np.ones(3))


# ---- batches

@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resumed_stream_gives_the_same_batches(layout, corpus):
    source, again, other = stream(corpus, layout), stream(corpus, layout), stream(corpus, layout, seed=2)
    np.random.seed(5), torch.manual_seed(5)
    for _ in range(source.steps_per_epoch + 3):
        source.next()
    again.load_state_dict(source.state_dict())
    batches = [(source.next(), again.next()) for _ in range(source.steps_per_epoch)]
    assert all(same(*pair) for pair in batches)
    other.load_state_dict(source.state_dict())
    assert not same(source.next(), other.next())


def test_steps_of_an_epoch_mask_other_places():
    source = stream(made_up([14] * 64), "padded")
    places = {(batch.target != IGNORED).numpy().tobytes() for batch in (source.next() for _ in range(source.steps_per_epoch))}
    assert len(places) == source.steps_per_epoch == 8


def test_an_epoch_has_another_order_and_a_row_other_masks_each_time(corpus):
    source = stream(corpus)
    first, second = ([source.next() for _ in range(source.steps_per_epoch)] for _ in range(2))
    assert [batch.uid.tolist() for batch in first] != [batch.uid.tolist() for batch in second]
    rows = [rows_of(batches) for batches in (first, second)]
    assert sorted(rows[0]) == sorted(rows[1]) == list(range(len(source.rows.sizes)))
    assert sum(rows[0][uid] == rows[1][uid] for uid in rows[0]) < 0.2 * len(rows[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_and_micro_batches_are_the_batch_together(world, layout, corpus):
    batch = next(iter(fixed_batches(corpus, np.arange(corpus.documents), layout, 64, masking(), 1, 10_000))).select(range(21))
    shares = [batch.shard(rank, world) for rank in range(world)]
    assert rows_of(shares) == rows_of([batch]) and sum(share.masked for share in shares) == batch.masked
    micro = [part for share in shares for part in share.split(128)]
    assert rows_of(micro) == rows_of([batch]) and sum(part.tokens for part in micro) == batch.tokens
    assert all(part.input_ids.numel() <= 128 or len(part) == 1 for part in micro)
    assert all(part.input_ids.shape[1] == int(part.attention_mask.sum(1).max()) for part in micro)
    assert batch.select([4, 2]).shard(2, 3) is None
    assert rows_of([batch.select([3])]) == {int(batch.uid[3]): rows_of([batch])[int(batch.uid[3])]} and same(batch.to("cpu"), batch)


def test_similar_lengths_come_together(corpus):
    source = stream(corpus, "padded", length=64, batch_size=4)
    batches = [source.next() for _ in range(source.steps_per_epoch)]
    assert sum(batch.input_ids.numel() for batch in batches) < 1.1 * sum(batch.tokens for batch in batches)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fixed_batches_are_every_row_with_the_same_masks_however_they_are_cut(layout, corpus):
    given = corpus, np.arange(0, corpus.documents, 2), layout, 32, masking()
    batches = fixed_batches(*given, 1, 200)
    first = rows_of(batches)
    assert first == rows_of(batches) == rows_of(fixed_batches(*given, 1, 77)) != rows_of(fixed_batches(*given, 2, 200))
    assert sorted(first) == list(range(len(batches.rows.sizes))) and sum(map(len, batches)) == len(first) and len(list(batches)) == len(batches)
    assert all(batch.input_ids.numel() <= 200 for batch in batches)
    share = sum(batch.masked for batch in batches) / sum(int((original(batch) >= FIRST_WORD).sum()) for batch in batches)
    assert 0.15 <= share < 0.2
