"""A corpus: what a document is, which ids it becomes, what is counted, what is refused."""

import tracemalloc

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_utils.corpus import Corpus, id_type
from data_utils.corpus import documents, pack, sources
from data_utils.corpus.documents import RULES, fragments, pieces
from data_utils.imdb import review_text
from distill.__main__ import main
from models.pretrained import load_tokenizer
from tests.corpora import content, documents_of, made_up, packed, story, texts

PLAIN = "\ufeffgood day \r\nthe man\n \n\n\tbad  film\n\nriver"


@pytest.fixture(scope="module")
def words(tiny_bert):
    return load_tokenizer(str(tiny_bert))


def written(folder, name: str, text: str | bytes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ids_of(corpus: Corpus, document: int) -> list[int]:
    return corpus.ids[corpus.offsets[document]:corpus.offsets[document + 1]].tolist()


# ---- documents

@pytest.mark.parametrize("rule, expected", [("blank", ["good day the man", "bad  film", "river"]), (None, ["good day the man", "bad  film", "river"]),
                                            ("line", ["good day", "the man", "bad  film", "river"]), ("file", ["good day the man bad  film river"])])
def test_a_document_is_what_the_rule_says(tmp_path, rule, expected):
    assert documents_of(written(tmp_path, "a.txt", PLAIN), rule) == expected


def test_a_folder_gives_a_document_per_text_file_in_the_order_of_their_paths(tmp_path, caplog):
    for name, text in {"b.txt": "second\n\nstill second", "a/z.txt": "first", "c.txt": "third", "notes.md": "no"}.items():
        written(tmp_path / "text", name, text)
    with caplog.at_level("INFO"):
        assert documents_of(tmp_path / "text") == ["first", "second still second", "third"]
    assert "1 of 4 files are left out" in caplog.text and "notes.md" in caplog.text
    assert documents_of(tmp_path / "text", "blank") == ["first", "second", "still second", "third"]


def test_of_aclimdb_the_reviews_are_text_and_the_lists_of_addresses_beside_them_are_not(tmp_path, caplog):
    for name, text in {"neg/0_3.txt": "bad<br /><br />film", "pos/0_9.txt": "good", "unsup/0_0.txt": "day", "urls_neg.txt": "http://a", "urls_unsup.txt": "http://b",
                       "labeledBow.feat": "0 9:1"}.items():
        written(tmp_path / "aclImdb/train", name, text)
    written(tmp_path / "aclImdb", "README", "about"), written(tmp_path / "aclImdb", "imdbEr.txt", "0.049")
    with caplog.at_level("INFO"):
        assert documents_of(tmp_path / "aclImdb") == documents_of(tmp_path / "aclImdb/train") == ["bad  film", "good", "day"]
    assert "5 of 8 files are left out" in caplog.text and "3 of 6 files are left out" in caplog.text and "beside folders of reviews (neg, pos): labeledBow.feat, urls_neg.txt, urls_unsup.txt" in caplog.text
    assert review_text({"text": "bad<br /><br />film"}) == ("bad  film",), "as fine-tuning reads it"


def test_line_breaks_are_spaces_wherever_a_long_line_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 64)
    assert documents_of(written(tmp_path, "a.txt", "bad film<br />day " * 500)) == [("bad film day " * 500).strip()]


ARTICLES = (" \n = A <unk> = \n \n A state @-@ of @-@ the @-@ art <unk> cost 1 @,@ 000 @.@ 5 . \n \n = = Part = = \n \n More text with an impedance k \n"
            " = 1 farad = \n \n = B = \n \n = = = Deep = = = \n \n <unk> @-@ class ship \n")
FIRST = "= A {} = A state-of-the-art {} cost 1,000.5 . = = Part = = More text with an impedance k = 1 farad ="


def test_wikitext_gives_articles_with_its_hyphens_joined_and_its_unknown_words_unknown(tmp_path):
    for name, word in (("wiki.train.raw", "<unk>"), ("wiki.valid.tokens", "UNK")):
        path = written(tmp_path, name, ARTICLES)
        assert documents_of(path) == documents_of(path, "line") == [FIRST.format(word, word), f"= B = = = = Deep = = = {word}-class ship"]


def test_hyphens_of_wikitext_are_joined_wherever_a_long_line_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 64)
    path = written(tmp_path, "wiki.test.raw", "two @-@ part " * 500)
    assert documents_of(path) == [("two-part " * 500).strip()]


@pytest.mark.realdata
@pytest.mark.parametrize("name, unknown", [("wikitext-2-raw/wiki.test.raw", 0), ("wikitext-2/wiki.test.tokens", 1), ("wikitext-2/wiki.valid.tokens", 1)])
def test_the_published_wikitext_files_hold_their_60_articles(shared, name, unknown):
    found = documents_of(shared / name)
    assert len(found) == 60 and all(text.startswith("= ") for text in found)
    assert not any(" @-@ " in text or "<unk>" in text for text in found) and any("UNK" in text for text in found) == unknown


def test_rows_of_the_hub_are_documents_and_wikitext_rows_are_lines(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = {"bookcorpus": ["one\nstory", "", "two"], "Salesforce/wikitext": ARTICLES.splitlines(keepends=True)}
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_dict({"text" if name in rows else "words": rows.get(name, ["a"])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    plain, raw, tokens = sources.find_sources(["hub:bookcorpus::train", "hub:Salesforce/wikitext:wikitext-2-raw-v1:test",
                                               "hub:Salesforce/wikitext:wikitext-2-v1:test"], "file")
    assert asked[:2] == [("bookcorpus", None, "train"), ("Salesforce/wikitext", "wikitext-2-raw-v1", "test")]
    assert texts(plain) == ["one story", "two"] and len(texts(raw)) == 2 and "<unk>" in texts(raw)[0]
    assert texts(tokens)[0] == FIRST.format("UNK", "UNK")
    assert plain.survey(lambda size: None)["bytes"] == len("one story\n\ntwo\n") and [line.text for line in plain.fragments(2)] == ["two"]
    with pytest.raises(ValueError, match="expected a column 'text', found \\['words'\\]"):
        sources.find_sources(["hub:other:config:train"], None)
    with pytest.raises(ValueError, match="expected hub:NAME:CONFIG:SPLIT"):
        sources.find_sources(["hub:other"], None)
    monkeypatch.setattr(sources, "reachable", lambda: False)
    with pytest.raises(ValueError, match="hub:other::train: the Hub cannot be reached. Give a text file"):
        sources.find_sources(["hub:other::train"], None)


# ---- ids

def test_ids_are_the_tokenizers_without_special_tokens_and_without_its_limits(words, tmp_path):
    text = "[SEP] good [MASK] day " + "the man " * 200
    words.backend_tokenizer.enable_truncation(16)
    corpus = packed([written(tmp_path, "a.txt", text + "\n\nbad film")], words, tmp_path / "out").corpus
    words.backend_tokenizer.no_truncation()
    plain = Tokenizer.from_str(words.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    assert ids_of(corpus, 0) == plain.encode(text, add_special_tokens=False).ids and len(ids_of(corpus, 0)) > 400
    assert ids_of(corpus, 1) == words("bad film", add_special_tokens=False)["input_ids"]
    assert not set(corpus.ids.tolist()) & {words.pad_token_id, words.cls_token_id, words.sep_token_id, words.mask_token_id}


def test_unknown_words_of_wikitext_are_the_tokenizers_unknown_token(words, tmp_path):
    corpus = packed([written(tmp_path, "wiki.test.tokens", "good <unk> day <unk>\n\n = Day = \n")], words, tmp_path / "out").corpus
    good, day = words("good day", add_special_tokens=False)["input_ids"]
    assert ids_of(corpus, 0) == [good, words.unk_token_id, day, words.unk_token_id]


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_deberta"])
def test_a_long_line_is_cut_and_gives_the_ids_of_the_whole(model, tmp_path, request):
    words = load_tokenizer(str(request.getfixturevalue(model)))
    text = story(60_000)
    packing = packed([written(tmp_path, "a.txt", f"\n{text}\n\nthe end")], words, tmp_path / "out")
    assert packing.corpus.documents == 2 and packing.facts["cuts_inside_words"] == 0 and len(text) > 5 * documents.PIECE
    assert ids_of(packing.corpus, 0) == words.backend_tokenizer.encode(text, add_special_tokens=False).ids


def test_a_line_of_five_million_characters_is_one_document(words, tmp_path):
    text = story(10_000)
    times = 5_000_000 // len(text) + 1
    packing = packed([written(tmp_path, "a.txt", " ".join([text] * times) + "\n\nday")], words, tmp_path / "out")
    assert packing.corpus.documents == 2 and (tmp_path / "a.txt").stat().st_size > 5_000_000
    assert (packing.corpus.ids[:-1].reshape(times, -1) == words.backend_tokenizer.encode(text, add_special_tokens=False).ids).all()


def test_text_without_white_space_is_cut_between_characters_and_said(words, tmp_path):
    path = written(tmp_path, "a.txt", "中" * 100_000 + "\n" + " " * 100_000 + "\nday")
    assert documents_of(path, "blank") == ["中" * 100_000, "day"]
    packing = packed([path], words, tmp_path / "out")  # BERT parts Chinese characters
    assert packing.corpus.tokens == 100_001 and packing.facts["cuts_inside_words"] > 0


def test_a_file_is_read_in_bounded_memory(tmp_path):
    path = written(tmp_path, "a.txt", " ".join([story(10_000)] * 100))
    tracemalloc.start()
    with path.open("rb") as file:
        lengths = [sum(map(len, piece.texts)) for piece in pieces(fragments(file), RULES["file"])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(lengths) > 4_000_000 and max(lengths) <= 2 * documents.PIECE and peak < 500_000


def test_packing_holds_a_batch_and_not_the_corpus(words, tmp_path, monkeypatch):
    path = written(tmp_path, "a.txt", "\n\n".join(story(200, seed) for seed in range(1000)))
    packed([written(tmp_path, "b.txt", "good\n\nday")], words, tmp_path / "first")  # what the first call imports is not the corpus
    for module, name in ((pack, "BATCH"), (pack, "BLOCK"), (sources, "BLOCK"), (documents, "PIECE")):
        monkeypatch.setattr(module, name, 1 << 13)
    tracemalloc.start()
    corpus = packed([path], words, tmp_path / "out", "blank").corpus
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert corpus.documents == 1000 and path.stat().st_size > 900_000 and peak < 450_000


@pytest.mark.parametrize("size, dtype", [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_two_bytes_where_the_vocabulary_fits(size, dtype, tmp_path):
    assert id_type(size) == dtype
    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(size - 5))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                    mask_token="[MASK]")
    corpus = packed([written(tmp_path, "a.txt", f"{size - 6}\n\n0")], words, tmp_path / "out").corpus
    assert corpus.ids.tolist() == [size - 1, 5] and corpus.ids.dtype == dtype
    assert (tmp_path / "out/ids.bin").stat().st_size == 2 * corpus.ids.dtype.itemsize


# ---- what a corpus tells

def test_a_corpus_tells_counts_offsets_and_what_was_left_out(words, tmp_path):
    named = [written(tmp_path, "a.txt", "good day\n\n\n\u200b\n\nthe good man\n"), written(tmp_path, "empty.txt", ""), written(tmp_path, "blank.txt", "\n \n")]
    packing = packed(named, words, tmp_path / "out")
    corpus, facts = packing.corpus, packing.facts
    assert (corpus.documents, corpus.tokens, corpus.vocabulary) == (2, 5, len(words)) and corpus.offsets.tolist() == [0, 2, 5]
    assert corpus.counts.tolist() == np.bincount(corpus.ids, minlength=len(words)).tolist()
    assert (facts["empty_sources"], facts["blank_rows"], facts["documents_without_tokens"], packing.made) == (2, 5, 1, 5)
    assert [source["name"] for source in facts["settings"]["sources"]] == ["a.txt", "empty.txt", "blank.txt"]
    assert load_tokenizer(str(corpus.tokenizer))("good day")["input_ids"] == words("good day")["input_ids"]
    assert corpus.special_ids == {"pad": 0, "cls": 2, "sep": 3, "mask": 4, "all": [0, 1, 2, 3, 4]}
    assert sorted(path.name for path in corpus.folder.iterdir()) == ["corpus.json", "counts.npy", "ids.bin", "offsets.npy", "tokenizer"]


def test_the_fingerprint_changes_with_a_token_and_with_where_documents_end(words, tmp_path):
    prints = [packed([written(tmp_path, f"{index}/a.txt", text)], words, tmp_path / f"out{index}").corpus.fingerprint
              for index, text in enumerate(["good day\n\nthe man", "good day the\n\nman", "good day\n\nthe film", "good day\n\n\nthe man\n"])]
    assert len(set(prints[:3])) == 3 and prints[0] == prints[3]


def test_every_200th_document_is_held_out(words, tmp_path):
    corpus = packed([written(tmp_path, "a.txt", "good\n" * 401)], words, tmp_path / "out", "line").corpus
    train, held = corpus.split()
    assert held.tolist() == [0, 200, 400] and sorted([*train, *held]) == list(range(401))
    two = packed([written(tmp_path, "b.txt", "good\nday")], words, tmp_path / "two", "line").corpus
    assert [part.tolist() for part in two.split()] == [[1], [0]]
    with pytest.raises(ValueError, match="a single document: none can be held out.*--documents"):
        made_up([3]).split()


def test_the_share_that_is_held_out_is_told_and_one_that_is_large_is_warned_of(words, tiny_bert, tmp_path, capsys, caplog):
    text = [written(tmp_path, "text/a.txt", "good\n" * 60), written(tmp_path, "text/b.txt", "day\n" * 40)]
    command = ["data", "pack", str(text[0].parent), "--tokenizer", str(tiny_bert), "--output_dir"]
    assert main([*command, str(tmp_path / "files")]) == 0
    assert "held out: 1 of the documents, 60 % of the tokens" in capsys.readouterr().out
    assert "60 % of the text is held out and trains nothing" in caplog.text and "--documents line" in caplog.text
    caplog.clear()
    assert main([*command, str(tmp_path / "lines"), "--documents", "line"]) == 0
    assert "held out: 1 of the documents, 1 % of the tokens" in capsys.readouterr().out and "trains nothing" not in caplog.text


@pytest.mark.parametrize("text", ["good day\nthe man\n", "good day\n\n\u200b"])
def test_a_single_document_is_refused_with_what_to_do_and_leaves_nothing(text, words, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        if "\u200b" not in text:
            patch.setattr(pack._Words, "ids", lambda *given: pytest.fail("it was tokenised first"))
        with pytest.raises(ValueError, match="1 source .a.txt .* with a single document: expected 2 or more.*--documents line"):
            packed([written(tmp_path, "a.txt", text)], words, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if "\u200b" not in text:
        assert packed([tmp_path / "a.txt"], words, tmp_path / "out", "line").corpus.documents == 2


# ---- what is refused

@pytest.mark.parametrize("block", [1, 4, 7, 1 << 20])
def test_bytes_that_are_no_utf8_are_told_by_file_byte_and_line_before_anything_is_written(block, words, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", block)
    fine = written(tmp_path, "fine.txt", "中é\n" * 9)
    wrong = written(tmp_path, "wrong.txt", "中é\n".encode() * 3 + b"caf\xe9 au lait\n")
    with pytest.raises(ValueError, match=r"wrong.txt: byte 21 \(0xe9, counted from 0; line 4\) is not UTF-8: convert the file.*iconv"):
        packed([fine, wrong], words, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"cut.txt: byte 2 .*line 1\)"):
        packed([written(tmp_path, "cut.txt", b"ab\xe4\xb8")], words, tmp_path / "out")


@pytest.mark.parametrize("text", ["", "\n \n\n", "\u200b"])
def test_sources_without_a_word_are_refused_and_leave_nothing(text, words, tmp_path):
    with pytest.raises(ValueError, match="nothing to pack: 2 sources \\(a.txt ...\\) without a word"):
        packed([written(tmp_path, "a.txt", text), written(tmp_path, "b.txt", text)], words, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_of_nothing_and_folders_without_text_are_refused(words, tmp_path):
    written(tmp_path, "text/a.md", "text")
    with pytest.raises(ValueError, match="no file or folder .*nothing.*give text files, folders of .txt files, or hub:"):
        packed([tmp_path / "nothing"], words, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no text: of its 1 files none is named"):
        packed([tmp_path / "text"], words, tmp_path / "out")


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), pad_token="b")
    with pytest.raises(ValueError, match="there is none for cls, sep, mask"):
        packed([written(tmp_path, "a.txt", "a b")], tokenizer, tmp_path / "out")


@pytest.mark.parametrize("damage", ["no ids.bin", "ids.bin", "offsets.npy", "counts.npy", "corpus.json"])
def test_a_corpus_that_is_not_whole_is_refused_with_the_command_that_makes_one(damage, words, tmp_path):
    folder = packed([written(tmp_path, "a.txt", "good day\n\nthe man")], words, tmp_path / "out").corpus.folder
    if damage == "no ids.bin":
        (folder / "ids.bin").unlink()
    else:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:-2])
    with pytest.raises(ValueError, match=f"the corpus in {folder} is damaged.*python -m distill data pack .*--output_dir {folder}"):
        Corpus.open(folder)
    with pytest.raises(ValueError, match="no packed corpus in .*nowhere.*python -m distill data pack"):
        Corpus.open(tmp_path / "nowhere")
    assert content(folder)
