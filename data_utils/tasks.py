"""The types Example, Split and Task, and THE one table of tasks.

A task is data: which columns are read in which order, what the labels are called and in which order the classes count, which
metrics are reported, which files and Hub splits hold it. Everything that needs to know a task asks this table. A task of another
shape adds a field with a default here; the entries below stay as they are.
"""
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from data_utils import imdb, squad, superglue


@dataclass(frozen=True)
class Example:
    """One row of a split.

    uid: row index within its split, 0-based, over the rows kept; it keys every cache and, for test splits, is the submission index.
    texts: the texts in the task's reading order, as they stand in the file; for SuperGLUE made of a row (superglue.py). Of a
        task of choices: what all choices share, then each choice.
    target: class index into Task.labels, a score for regression, or None where the split has no labels.
    group: rows of one group (a question's answers, say) are judged together; the row's uid where it is alone.
    credit: what it is worth to choose this row of its group; nan where rows are not chosen, or the split has no labels.
    id, answers: of a question over a text, how its file calls it, and the gold answers, (text, number of its first letter in the
        context): none where it has no answer, None where they are not told. Such a row has no target.
    """
    uid: int
    texts: tuple[str, ...]
    target: int | float | None
    group: int = -1
    credit: float = math.nan
    id: str = ""
    answers: tuple[tuple[str, int], ...] | None = None

    def __post_init__(self):
        if self.group < 0:
            object.__setattr__(self, "group", self.uid)


@dataclass(frozen=True)
class Split:
    """One split of a task and where it lives.

    files: paths inside the task's folder, of which the first that is there is read: .tsv tables, .jsonl records, or without a suffix
    a folder of reviews (readers/reviews.py). hub: the split's name on the Hub. labelled: False for test splits, whose labels (if a copy
    has any) are never read. columns: the column names of a file that has no header line. submissions: file names in a submission, .tsv
    to GLUE and .jsonl to SuperGLUE.
    """
    name: str
    files: tuple[str, ...]
    hub: str
    labelled: bool = True
    columns: tuple[str, ...] = ()
    submissions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What one task is; see the fields. Public and hashable, so it can travel inside configs and cache keys.

    texts: text columns by header name, in reading order (`[CLS] texts[0] [SEP] texts[1] [SEP]`).
    label_column: header name of the label; "" where no split is labelled.
    labels: class names, index = class id, spelled as the Hub's ClassLabel spells them; () for regression.
    raw_labels: the same classes as the official files and a GLUE submission spell them.
    score_range: lowest and highest legal score of a regression task.
    metrics: names in data_utils.metrics; the selection score is their mean.
    folders: folder names besides the task's own (compared without case and punctuation).
    aliases: (name found in some copies, official name) of columns.
    spellings: further spellings of the classes, each a tuple like raw_labels. submitted_labels: as a SuperGLUE submission spells them,
        where that is not raw_labels.
    ragged: a crawl whose official files have rows with too few fields (left out) and empty texts (kept); both are counted and said.
    suite: the benchmark, "glue" or "superglue", or the data set: where the Hub has it; "" where it has not.
    rows, fields, form: the rows of a record; the columns that are read; the texts that they make. For tasks whose texts are no columns.
    num_choices: how many choices an example has, of which one scorer takes one; 0 where classes are the same for all examples.
    group_by: the column whose values group the rows that are judged together; or "pairs", two neighbouring rows.
    candidates: one row of each group is chosen, the one that is likeliest to be of the last class.
    predicted_by: the task whose model predicts this one, where it has no training data of its own.
    spans: the second text is read for an answer to the first, in windows; the labels are what a token is to it, its start or its end.
    unanswerable: some questions have no answer in their text.
    dev_may_lack_answers: copies of the dev set go round without them: by default a part of train selects the models.
    version: raised when the meaning of a row, a label or a metric changes; part of every cache key and record.
    """
    name: str
    texts: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    raw_labels: tuple[str, ...]
    metrics: tuple[str, ...]
    splits: tuple[Split, ...]
    hub_config: str
    hub_texts: tuple[str, ...]
    max_length: int
    score_range: tuple[float, float] | None = None
    folders: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    spellings: tuple[tuple[str, ...], ...] = ()
    submitted_labels: tuple[str, ...] = ()
    ragged: bool = False
    predicted_by: str = ""
    suite: str = "glue"
    rows: Callable[[Mapping], Iterator[dict[str, str]]] = superglue.flat
    fields: tuple[str, ...] = ()
    form: Callable[[dict[str, str]], tuple[str, ...]] | None = None
    num_choices: int = 0
    group_by: str = ""
    candidates: bool = False
    spans: bool = False
    unanswerable: bool = False
    dev_may_lack_answers: bool = False
    version: int = 1

    @property
    def is_regression(self) -> bool:
        """True where the target is a score."""
        return self.score_range is not None

    @property
    def num_labels(self) -> int:
        """Width of the logits: the number of classes or choices, 1 for regression."""
        return 1 if self.is_regression else len(self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row is made of, besides its label."""
        return self.fields or self.texts

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of all splits, training first."""
        return tuple(split.name for split in self.splits)

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """Labelled splits for evaluation; model selection uses the FIRST one, unless the task is scored on its test set."""
        return tuple(split.name for split in self.splits if split.labelled and split.name != "train")

    @property
    def scored_on_test(self) -> bool:
        """Whether models of the task have no labelled split but the test set to be scored on: it selects none of them, a part of train
        does."""
        return self.split_names[:1] == ("train",) and self.dev_splits == ("test",)

    @property
    def train_selects(self) -> bool:
        """Whether by default a part of train, held out, selects the models."""
        return self.scored_on_test or self.dev_may_lack_answers

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Splits that are predicted for a submission."""
        return tuple(split.name for split in self.splits if split.submissions)

    def split(self, name: str) -> Split:
        """The split called `name`; ValueError with the nearest and the list otherwise."""
        for split in self.splits:
            if split.name == name:
                return split
        nearest = difflib.get_close_matches(name, self.split_names, n=1, cutoff=0.0)
        known = f"nearest: {nearest[0]}; splits: {', '.join(self.split_names)}" if nearest else "nor any other"
        raise ValueError(f"{self.name} has no split {name!r}; {known}")


def _splits(submission: str, columns: tuple[str, ...] = ()) -> tuple[Split, ...]:
    """train/dev/test in the files and under the Hub names that most tasks use; `columns`: train and dev have no header."""
    return (Split("train", ("train.tsv",), "train", columns=columns), Split("dev", ("dev.tsv",), "validation", columns=columns),
            Split("test", ("test.tsv",), "test", labelled=False, submissions=(submission,)))


def _question_splits(train: str, dev: str) -> tuple[Split, ...]:
    """train/dev of questions over a text, whose test sets are kept by those who made them."""
    return Split("train", (train,), "train"), Split("dev", (dev,), "validation")


def _record_splits(*submissions: str) -> tuple[Split, ...]:
    """train/dev/test of SuperGLUE: JSON lines, or tables as MPDistil's users have them."""
    return (Split("train", ("train.jsonl", "train.tsv"), "train"), Split("dev", ("val.jsonl", "dev.tsv"), "validation"),
            Split("test", ("test.jsonl", "test.tsv"), "test", labelled=False, submissions=submissions))


# Classes count in the Hub's order. Other programs count MNLI, QNLI and RTE differently, hence: labels are mapped by name, never by
# position. WNLI is the opposite of RTE: its files say 0 for not_entailment.
_ENTAILMENT_3 = ("entailment", "neutral", "contradiction")
_ENTAILMENT_2 = ("entailment", "not_entailment")
_ZERO_ONE = ("0", "1")
_PAIR = ("sentence1", "sentence2")
_TRUTH = ("False", "True")
_SPAN = {"spans": True, "max_length": 384, "rows": squad.rows}
_QUESTION, _START_END, _SQUAD_METRICS = ("question", "context"), ("start", "end"), ("squad_em", "squad_f1")
_PREMISE = (("premise", "sentence1"), ("hypothesis", "sentence2"))  # SuperGLUE's names

TASKS: tuple[Task, ...] = (
    Task("CoLA", ("sentence",), "label", ("unacceptable", "acceptable"), _ZERO_ONE, ("matthews",),
         _splits("CoLA.tsv", columns=("source", "label", "mark", "sentence")), "cola", ("sentence",), max_length=128),
    Task("SST-2", ("sentence",), "label", ("negative", "positive"), _ZERO_ONE, ("accuracy",),
         _splits("SST-2.tsv"), "sst2", ("sentence",), max_length=128, folders=("SST",), aliases=(("content", "sentence"),)),
    Task("MRPC", ("#1 String", "#2 String"), "Quality", ("not_equivalent", "equivalent"), _ZERO_ONE, ("f1", "accuracy"),
         _splits("MRPC.tsv"), "mrpc", _PAIR, max_length=128),
    Task("STS-B", _PAIR, "score", (), (), ("pearson", "spearman"),
         _splits("STS-B.tsv"), "stsb", _PAIR, max_length=128, score_range=(0.0, 5.0), folders=("STS",)),
    Task("QQP", ("question1", "question2"), "is_duplicate", ("not_duplicate", "duplicate"), _ZERO_ONE, ("f1", "accuracy"),
         _splits("QQP.tsv"), "qqp", ("question1", "question2"), max_length=320, ragged=True),
    Task("MNLI", _PAIR, "gold_label", _ENTAILMENT_3, _ENTAILMENT_3, ("accuracy",),
         (Split("train", ("train.tsv",), "train"),
          Split("dev_matched", ("dev_matched.tsv",), "validation_matched"),
          Split("dev_mismatched", ("dev_mismatched.tsv",), "validation_mismatched"),
          Split("test_matched", ("test_matched.tsv",), "test_matched", labelled=False, submissions=("MNLI-m.tsv",)),
          Split("test_mismatched", ("test_mismatched.tsv",), "test_mismatched", labelled=False, submissions=("MNLI-mm.tsv",))),
         "mnli", ("premise", "hypothesis"), max_length=256),
    Task("QNLI", ("question", "sentence"), "label", _ENTAILMENT_2, _ENTAILMENT_2, ("accuracy",),
         _splits("QNLI.tsv"), "qnli", ("question", "sentence"), max_length=512),
    Task("RTE", _PAIR, "label", _ENTAILMENT_2, _ENTAILMENT_2, ("accuracy",),
         (Split("train", ("train.tsv", "train.jsonl"), "train"), Split("dev", ("dev.tsv", "val.jsonl"), "validation"),
          Split("test", ("test.tsv", "test.jsonl"), "test", labelled=False, submissions=("RTE.tsv", "RTE.jsonl"))),
         "rte", _PAIR, max_length=320, aliases=_PREMISE),  # in both benchmarks
    Task("WNLI", _PAIR, "label", ("not_entailment", "entailment"), _ZERO_ONE, ("accuracy",),
         _splits("WNLI.tsv"), "wnli", _PAIR, max_length=128),
    Task("AX", _PAIR, "", _ENTAILMENT_3, _ENTAILMENT_3, ("matthews",),
         (Split("test", ("diagnostic.tsv",), "test", labelled=False, submissions=("AX.tsv",)),),
         "ax", ("premise", "hypothesis"), max_length=256, folders=("diagnostic",), predicted_by="MNLI"),

    Task("BoolQ", ("question", "passage"), "label", _TRUTH, ("false", "true"), ("accuracy",), _record_splits("BoolQ.jsonl"),
         "boolq", ("question", "passage"), max_length=256, suite="superglue"),
    Task("CB", ("premise", "hypothesis"), "label", ("entailment", "contradiction", "neutral"),
         ("entailment", "contradiction", "neutral"), ("accuracy", "macro_f1"), _record_splits("CB.jsonl"),
         "cb", ("premise", "hypothesis"), max_length=256, suite="superglue"),
    Task("COPA", ("premise", "choice1", "choice2"), "label", ("choice1", "choice2"), _ZERO_ONE, ("accuracy",),
         _record_splits("COPA.jsonl"), "copa", (), max_length=128, suite="superglue", num_choices=2,
         fields=("premise", "choice1", "choice2", "question"), form=superglue.copa_texts),
    Task("MultiRC", ("paragraph", "question and answer"), "label", _TRUTH, _ZERO_ONE, ("f1", "exact_match"), _record_splits("MultiRC.jsonl"),
         "multirc", (), max_length=512, suite="superglue", rows=superglue.multirc_rows, group_by="question_idx",
         fields=("paragraph", "question", "answer", "paragraph_idx", "question_idx", "answer_idx"), form=superglue.multirc_texts),
    Task("ReCoRD", ("passage", "filled query"), "label", _TRUTH, _ZERO_ONE, ("words_f1", "exact_match"),
         tuple(replace(split, files=split.files[:1]) for split in _record_splits("ReCoRD.jsonl")),  # a table has no place for its answers
         "record", (), max_length=512, suite="superglue", rows=superglue.record_rows, group_by="query_idx", candidates=True,
         fields=("passage", "query", "entity", "query_idx"), form=superglue.record_texts, version=3),  # 2: articles, 3: exact match as the official script
    Task("WiC", _PAIR, "label", _TRUTH, ("false", "true"), ("accuracy",), _record_splits("WiC.jsonl"),
         "wic", (), max_length=256, suite="superglue", spellings=(_ZERO_ONE,), form=superglue.wic_texts,
         fields=("word", *_PAIR, "start1", "end1", "start2", "end2")),
    Task("WSC", ("text", "span1_text"), "label", _TRUTH, ("false", "true"), ("accuracy",), _record_splits("WSC.jsonl"),
         "wsc.fixed", (), max_length=256, suite="superglue", submitted_labels=_TRUTH, rows=superglue.wsc_row, form=superglue.wsc_texts,
         fields=("text", "span1_text", "span2_text", "span2_index"),
         aliases=(("span1_txt", "span1_text"), ("span2_txt", "span2_text"), ("span2_idx", "span2_index"))),
    Task("AX-b", _PAIR, "label", _ENTAILMENT_2, _ENTAILMENT_2, ("matthews",),
         (Split("test", ("AX-b.jsonl",), "test", submissions=("AX-b.jsonl",)),), "axb", _PAIR, max_length=320, suite="superglue",
         predicted_by="RTE"),
    Task("AX-g", _PAIR, "label", _ENTAILMENT_2, _ENTAILMENT_2, ("accuracy", "parity"),
         (Split("test", ("AX-g.jsonl",), "test", submissions=("AX-g.jsonl",)),), "axg", ("premise", "hypothesis"), max_length=320,
         suite="superglue", aliases=_PREMISE, group_by="pairs", predicted_by="RTE"),

    Task("SQuAD", _QUESTION, "answers", _START_END, _START_END, _SQUAD_METRICS, _question_splits("train-v1.1.json", "dev-v1.1.json"),
         "plain_text", _QUESTION, suite="squad", **_SPAN),
    Task("SQuAD2", _QUESTION, "answers", _START_END, _START_END, _SQUAD_METRICS, _question_splits("train-v2.0.json", "dev-v2.0.json"),
         "squad_v2", _QUESTION, suite="squad_v2", folders=("squad_v2", "SQuAD2.0"), unanswerable=True, **_SPAN),
    Task("TyDiQA", _QUESTION, "answers", _START_END, _START_END, _SQUAD_METRICS,
         _question_splits("tydiqa.goldp.en.train.json", "tydiqa.goldp.en.dev.json"), "", _QUESTION, suite="",
         folders=("tydiqa-goldp-en", "tydiqa-goldp"), dev_may_lack_answers=True, **_SPAN),
    # Uids follow the files (readers/reviews.py); the Hub has another order, and with it another held-out tenth.
    Task("IMDb", ("text",), "label", ("negative", "positive"), ("neg", "pos"), ("accuracy",),
         (Split("train", ("train",), "train"), Split("test", ("test",), "test")), "plain_text", ("text",), max_length=512, suite="imdb",
         folders=("aclImdb",), fields=("text",), form=imdb.review_text),

    Task("demo", ("sentence",), "label", ("first_sense", "second_sense"), _ZERO_ONE, ("accuracy",),
         (Split("train", ("train.tsv",), "train"), Split("dev", ("dev.tsv",), "validation"),
          Split("test", ("test.tsv",), "test", labelled=False)), "", (), max_length=64),
)

# What pre-training learns, the masked words of any text: in no folder of tasks, so not in the table.
TEXT = Task("text", ("text",), "", (), (), ("accuracy",), (), "", (), max_length=128, suite="")


def normalise(name: str) -> str:
    """`name` in lower case without punctuation: "SST-2", "sst2" and "SST_2" are one spelling."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def task_names() -> tuple[str, ...]:
    """The names of all tasks, in table order."""
    return tuple(task.name for task in TASKS)


def get_task(name: str) -> Task:
    """The task called `name` in any usual spelling (sst2, COLA, stsb, mnli, diagnostic).

    ValueError for an unknown name, with the nearest name and the whole list.
    """
    spellings = {normalise(alias): task for task in (*TASKS, TEXT) for alias in (task.name, *task.folders)}
    found = spellings.get(normalise(name))
    if found is None:
        nearest = difflib.get_close_matches(normalise(name), list(spellings), n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown task {name!r}; nearest: {spellings[nearest].name}; tasks: {', '.join(task_names())}")
    return found
