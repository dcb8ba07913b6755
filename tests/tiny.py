"""Tiny models and tasks that the tests write themselves."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

from models.import_checkpoint import load_published_tokenizer
from tests.published_formats import write_tokenizer

GOOD = "good fine bright happy warm lovely".split()
BAD = "bad poor dull sad cold ugly".split()
NEUTRAL = "the a film day man story house was is very and of with river bank money tree".split()
WORDS = GOOD + BAD + NEUTRAL
TIMES = ("seconds", "tokens_per_second", "mfu")  # what differs between the logs of two equal runs


def write_bert(folder: Path, words: list[str] = WORDS, **changed) -> Path:
    """A random BERT of 4 layers, 32 wide, that knows `words`; `changed`: settings of its config that are others."""
    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                            sep_token="[SEP]", mask_token="[MASK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = {"vocab_size": len(vocabulary), "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
              "intermediate_size": 64, "max_position_embeddings": 128}
    BertModel(BertConfig(**config | changed)).save_pretrained(folder)
    return folder


def write_deberta(folder: Path) -> Path:
    """A random DeBERTa-v2 with v3's settings, 4 layers, 64 wide, and a SentencePiece vocabulary."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    write_tokenizer(folder / "spm.model", [" ".join(draw.choices(WORDS, k=8)) + " ." for _ in range(200)])
    tokenizer = load_published_tokenizer(folder / "spm.model")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = DebertaV2Config(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=1,
                             intermediate_size=96, max_position_embeddings=64, relative_attention=True,
                             position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True,
                             pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0)
    DebertaV2Model(config).save_pretrained(folder)
    return folder


def write_glue(folder: Path, rows: int = 48) -> Path:
    """Small CoLA, SST-2, MRPC and STS-B folders in the official layouts; the label follows GOOD and BAD words."""
    draw = random.Random(0)

    def sentence(mood: list[str]) -> str:
        words = draw.choices(NEUTRAL, k=draw.randint(2, 9)) + draw.choices(mood, k=2)
        draw.shuffle(words)
        return " ".join(words) + " ."

    for split, count in {"train": rows, "dev": 16, "test": 8}.items():
        lines = {"CoLA": [], "SST-2": ["sentence\tlabel"], "MRPC": ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"],
                 "STS-B": ["index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"]}
        if split == "test":
            lines = {"CoLA": ["index\tsentence"], "SST-2": ["index\tsentence"],
                     "MRPC": ["index\t#1 ID\t#2 ID\t#1 String\t#2 String"],
                     "STS-B": ["index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"]}
        for row in range(count):
            label = row % 2
            first, second = sentence(GOOD if label else BAD), sentence(GOOD)
            start, score = ("", f"\t{5 * label}.0") if split != "test" else (f"{row}\t", "")
            lines["CoLA"].append(f"src\t{label}\t\t{first}" if split != "test" else f"{row}\t{first}")
            lines["SST-2"].append(f"{first}\t{label}" if split != "test" else f"{row}\t{first}")
            lines["MRPC"].append(f"{label if split != 'test' else row}\t1\t2\t{first}\t{second}")
            lines["STS-B"].append(f"{row}\tg\tf\t2012\t0\ts\ts\t{first}\t{second}{score}")
        for task, content in lines.items():
            (folder / task).mkdir(parents=True, exist_ok=True)
            (folder / task / f"{split}.tsv").write_text("\n".join(content) + "\n", encoding="utf-8")
    return folder


def write_superglue(folder: Path, rows: int = 24) -> Path:
    """Small COPA, MultiRC, ReCoRD, WSC and RTE in the official layout of SuperGLUE, with AX-g; GOOD words are the right answers."""
    draw = random.Random(0)

    def pick(words: list[str], count: int = 1) -> str:
        return " ".join(draw.choices(words, k=count))

    for split, count in {"train": rows, "val": 8, "test": 6}.items():
        records: dict[str, list[dict]] = {"COPA": [], "MultiRC": [], "ReCoRD": [], "WSC": [], "RTE": []}
        for index in range(count):
            label = index % 2
            choices = [pick(BAD, 2), pick(GOOD, 2)] if label else [pick(GOOD, 2), pick(BAD, 2)]
            records["COPA"].append({"premise": pick(NEUTRAL, 4), "choice1": choices[0], "choice2": choices[1],
                                    "question": ("cause", "effect")[draw.randrange(2)], "idx": index, "label": label})
            answers = [{"text": pick(GOOD if right else BAD), "idx": 3 * index + place, "label": right} for place, right in enumerate((0, 1, label))]
            records["MultiRC"].append({"idx": index, "version": 1.1, "passage": {"text": pick(NEUTRAL, 6), "questions": [
                {"question": pick(NEUTRAL, 2), "idx": index, "answers": answers}]}})
            entities = [pick(GOOD), *draw.sample(BAD, 2)]
            text, spans = " ".join(["the", *entities, "story"]), []
            for entity in entities:
                start = text.index(entity)
                spans.append({"start": start, "end": start + len(entity) - 1})
            records["ReCoRD"].append({"source": "tests", "idx": index, "passage": {"text": text, "entities": spans}, "qas": [
                {"query": "a @placeholder day", "idx": index, "answers": [{**spans[0], "text": entities[0]}]}]})
            records["WSC"].append({"text": f"the {pick(NEUTRAL)} was {pick(GOOD if label else BAD)} and it is warm", "idx": index,
                                   "target": {"span1_index": 0, "span1_text": "the", "span2_index": 5, "span2_text": "it"}, "label": bool(label)})
            records["RTE"].append({"premise": pick(NEUTRAL, 4), "hypothesis": pick(GOOD if label else BAD, 2), "idx": index,
                                   "label": ("not_entailment", "entailment")[label]})
        for task, lines in records.items():
            if split == "test":
                lines = [_without_answers(record) for record in lines]
            _write_lines(folder / task / f"{split}.jsonl", lines)
    _write_lines(folder / "AX-g/AX-g.jsonl", [
        {"hypothesis": pick(GOOD, 2), "idx": index, "label": "entailment", "pair_id": index, "premise": pick(NEUTRAL, 3)} for index in range(8)])
    return folder


def write_imdb(folder: Path, rows: int = 40) -> Path:
    """A small aclImdb folder as unpacked, `rows` reviews in train and 16 in test; GOOD and BAD words tell the class."""
    draw = random.Random(0)
    for split, count in {"train": rows, "test": 16}.items():
        for number in range(count):
            label, rating = ("pos", 9) if number % 2 else ("neg", 2)
            words = draw.choices(NEUTRAL, k=draw.randint(2, 9)) + draw.choices(GOOD if number % 2 else BAD, k=2)
            path = folder / "aclImdb" / split / label / f"{number // 2}_{rating}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(" ".join(words[:2]) + "<br /><br />" + " ".join(words[2:]) + " .")
    return folder


def _without_answers(record):
    """The record of a test split."""
    if isinstance(record, dict):
        keep = {name: value for name, value in record.items() if name != "label"}
        return {name: _without_answers(value) for name, value in keep.items() if not (name == "answers" and "query" in record)}
    return [_without_answers(item) for item in record] if isinstance(record, list) else record


def _write_lines(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_squad(folder: Path, questions: int = 24) -> Path:
    """Small SQuAD, SQuAD2 and TyDiQA; the answer is the GOOD words of the text, of which every other one of SQuAD2 has none. TyDiQA's
    dev set comes without its answers, as in copies of it."""
    draw = random.Random(0)
    for task, train, dev in (("SQuAD", "train-v1.1.json", "dev-v1.1.json"), ("SQuAD2", "train-v2.0.json", "dev-v2.0.json"),
                             ("TyDiQA", "tydiqa.goldp.en.train.json", "tydiqa.goldp.en.dev.json")):
        for file, count in ((train, questions), (dev, 8)):
            paragraphs = []
            for number in range(count):
                answer, before = " ".join(draw.sample(GOOD, 2)), " ".join(draw.choices(NEUTRAL, k=draw.randint(1, 20)))
                context = f"{before} {answer} {' '.join(draw.choices(NEUTRAL, k=4))} ."
                answers = [{"text": answer, "answer_start": len(before) + 1}]
                if task == "SQuAD2" and number % 2:
                    context, answers = context.replace(answer, "bad poor"), []
                if file == "tydiqa.goldp.en.dev.json":
                    answers = [{"text": "", "answer_start": 0}]
                paragraphs.append({"context": context, "qas": [{"id": f"{task}-{file}-{number}", "question": "what was the story", "answers": answers}]})
            (folder / task).mkdir(parents=True, exist_ok=True)
            (folder / task / file).write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return folder
