"""How well senses found without supervision agree with the true ones, on the demo task, whose senses are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, homogeneity_score

from data_utils.batching import collate, sequential_batches
from data_utils.demo import read_true_senses
from data_utils.encode import encode
from data_utils.readers import read_examples
from data_utils.tasks import Task
from distill import workers
from distill.kmeans import kmeans
from distill.senses.dictionary import SenseDictionary
from models.encoder import Encoder


@dataclass(frozen=True)
class Occurrences:
    """Ambiguous tokens of a split: word [M], true sense [M], token id [M], hidden states of some layers [L, M, D]."""

    word: np.ndarray
    sense: np.ndarray
    ids: torch.Tensor
    states_LMD: torch.Tensor


@dataclass(frozen=True)
class Agreement:
    """Agreement of found and true senses. adjusted_rand: chance 0, perfect 1, lowered by splitting a true sense over
    several found ones. homogeneity: 1 where every found sense holds one true sense, however many there are."""

    adjusted_rand: float
    homogeneity: float


@torch.no_grad()
def collect_occurrences(teacher: Encoder, task: Task, split: str, folder: Path, layers: Sequence[int]) -> Occurrences:
    """The ambiguous tokens of a demo split in `folder` (.../demo), as the teacher's `layers` see them."""
    examples = read_examples(task, split, str(folder.parent))
    truth = read_true_senses(folder, split)
    dataset = encode(examples, teacher.tokenizer, task.max_length)
    column = {}
    for entry in truth:
        text = examples[entry.row].texts[0]
        start = len(" ".join([*text.split()[:entry.word_index], ""]))
        column[entry.row, entry.word_index] = teacher.tokenizer(text).char_to_token(start)
    states = {}
    teacher.eval().to(workers.device())
    for rows in sequential_batches(dataset.lengths, workers.batch_tokens()):
        batch = collate(dataset, rows, task.name, teacher.tokenizer.pad_token_id).to(workers.device())
        hidden = teacher.encode(batch)
        line_of = {int(row): line for line, row in enumerate(rows)}
        for entry in truth:
            if entry.row in line_of:
                place = line_of[entry.row], column[entry.row, entry.word_index]
                states[entry.row, entry.word_index] = (int(batch.input_ids[place]),
                                                       torch.stack([hidden[layer][place].float().cpu() for layer in layers]))
    found = [states[entry.row, entry.word_index] for entry in truth]
    return Occurrences(np.array([entry.word for entry in truth]), np.array([entry.sense for entry in truth]),
                       torch.tensor([token for token, _ in found]), torch.stack([state for _, state in found], 1))


def agreement(found: np.ndarray, occurrences: Occurrences) -> dict[str, Agreement]:
    """The agreement of each word, and their mean as `all words`."""
    words = {}
    for word in sorted(set(occurrences.word)):
        rows = occurrences.word == word
        words[word] = Agreement(adjusted_rand_score(occurrences.sense[rows], found[rows]),
                                homogeneity_score(occurrences.sense[rows], found[rows]))
    mean = Agreement(*(float(np.mean([getattr(entry, name) for entry in words.values()]))
                       for name in ("adjusted_rand", "homogeneity")))
    return {**words, "all words": mean}


def score_dictionary(dictionary: SenseDictionary, occurrences: Occurrences) -> dict[str, Agreement]:
    """The agreement of a dictionary's look-up with the truth; `occurrences` hold the one layer it was built from."""
    found = dictionary.lookup().nearest(occurrences.states_LMD[0], occurrences.ids)
    return agreement(found.numpy(), occurrences)


def compare_layers(train: Occurrences, dev: Occurrences, num_senses: int, seed: int) -> list[dict[str, Agreement]]:
    """For each layer: senses clustered from the ambiguous tokens of `train`, looked up in `dev`, held to the truth."""
    results = []
    for train_MD, dev_MD in zip(train.states_LMD, dev.states_LMD, strict=True):
        senses = {}
        for token in train.ids.unique():
            points_ND = train_MD[train.ids == token]
            senses[int(token)] = kmeans(points_ND[None], torch.tensor([len(points_ND)]), token[None], num_senses,
                                        seed=seed, restarts=10).centroids_TKD[0]
        lookup = SenseDictionary.from_senses(senses, {}).lookup()
        results.append(agreement(lookup.nearest(dev_MD, dev.ids).numpy(), dev))
    return results
