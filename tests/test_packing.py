"""Packing as a command: interrupted anywhere it ends with the same bytes; a finished or another corpus is left alone."""

import fcntl
import random
import time

import pytest

from data_utils.corpus import documents, pack
from data_utils.corpus.journal import Journal
from distill.__main__ import main
from models.pretrained import load_tokenizer
from tests.corpora import content, packed, story
from tests.training import prepare_processes, start


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def words(tiny_bert):
    return load_tokenizer(str(tiny_bert))


@pytest.fixture
def text(tmp_path, monkeypatch):
    """Sources of every kind, some without a document, read in small pieces and packed in small batches."""
    monkeypatch.setattr(documents, "PIECE", 256)
    monkeypatch.setattr(pack, "BATCH", 1500)
    folder = tmp_path / "text"
    (folder / "files").mkdir(parents=True)
    (folder / "blank.txt").write_text("\n\n".join(story(60, seed) for seed in range(9)) + "\n\n\n\n" + "中" * 700)
    (folder / "wiki.train.tokens").write_text("\n".join(f" = Story {seed} = \n \n {story(90, seed)} <unk>\n \n = = Part = = \n \n {story(9, seed)}\n \n"
                                                        for seed in range(6)))
    (folder / "long.txt").write_text(story(1500))  # over several batches
    for number in range(12):
        (folder / f"files/{number:02}.txt").write_text([story(40, number), "", "\n \n"][number % 3 if number < 9 else 0])
    return [folder / "blank.txt", folder / "files", folder / "wiki.train.tokens", folder / "long.txt"]


def kill_in(monkeypatch, step: str, time_before: bool, count: int) -> None:
    """Die at the `count`-th call of a step of the journal, before or after it."""
    calls = [0]
    whole = getattr(Journal, step)

    def dying(self, *given):
        calls[0] += 1
        if calls[0] == count and time_before:
            raise Killed
        whole(self, *given)
        if calls[0] == count:
            raise Killed
    monkeypatch.setattr(Journal, step, dying)


def test_a_packing_that_dies_at_any_step_goes_on_to_the_same_bytes(words, text, tmp_path, monkeypatch):
    whole = packed(text, words, tmp_path / "whole")
    assert whole.facts["cuts_inside_words"] and whole.facts["empty_sources"] == 6 and whole.facts["blank_rows"] > 20
    deaths = 0
    for step in ("append", "commit"):
        for before in (True, False):
            for count in range(1, 100):
                out = tmp_path / f"{step}{before}{count}"
                with monkeypatch.context() as patch:
                    kill_in(patch, step, before, count)
                    try:
                        packed(text, words, out)
                        break  # it has fewer steps
                    except Killed:
                        deaths += 1
                again = packed(text, words, out)
                assert content(out) == content(tmp_path / "whole"), (step, before, count)
                if count > 2:
                    assert again.made < whole.made, "it began anew"
    assert deaths > 30


@pytest.mark.parametrize("name", ["tokenizer", "offsets.npy", "counts.npy", "corpus.json", "unfinished"])
def test_a_packing_that_dies_in_its_last_steps_goes_on_to_the_same_bytes(name, words, text, tmp_path, monkeypatch):
    packed(text, words, tmp_path / "whole")
    with monkeypatch.context() as patch:
        if name == "unfinished":
            patch.setattr(pack.shutil, "rmtree", lambda path, ignore_errors=False: 0 if ignore_errors else 1 / 0)
        else:
            rename = pack.Path.replace
            patch.setattr(pack.Path, "replace", lambda path, target: 1 / 0 if target.name == name else rename(path, target))
        with pytest.raises(ZeroDivisionError):
            packed(text, words, tmp_path / "out")
    assert packed(text, words, tmp_path / "out").made == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def command(text: list, words_folder, out) -> list[str]:
    return ["data", "pack", *map(str, text), "--tokenizer", str(words_folder), "--output_dir", str(out)]


def pack_in_small_batches(words: list[str]) -> None:
    """The program, in another process, with so little at once that there is time to kill it."""
    pack.BATCH, documents.PIECE = 400, 256
    main(words)


@pytest.mark.slow
def test_a_packing_killed_at_random_moments_ends_as_if_nothing_had_happened(words, text, tiny_bert, tmp_path):
    prepare_processes()
    (tmp_path / "text/more.txt").write_text("\n\n".join(story(60, seed) for seed in range(4000)))
    text.append(tmp_path / "text/more.txt")
    packed(text, words, tmp_path / "whole")
    draw, killed, midway = random.Random(0), 0, 0
    while killed < 10 and not (tmp_path / "out/corpus.json").exists():
        process = start(pack_in_small_batches, command(text, tiny_bert, tmp_path / "out"))
        time.sleep(draw.uniform(0, 3))
        process.kill()
        process.join()
        killed += 1
        midway += (tmp_path / "out/unfinished/progress.json").exists()
    assert main(command(text, tiny_bert, tmp_path / "out")) == 0 and midway > 3
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_the_command_tells_what_it_made_and_then_does_nothing(text, tiny_bert, tmp_path, capsys):
    assert main(command(text, tiny_bert, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "23 documents, " in said and "left out: " in said and "6 sources without a document" in said and " tokens/s" in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert main(command(text, tiny_bert, tmp_path / "out")) == 0
    assert "it was finished before: nothing was done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_other_settings_or_sources_are_refused_with_the_differences(state, words, text, tiny_deberta, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        if state == "unfinished":
            kill_in(patch, "commit", False, 2)
            with pytest.raises(Killed):
                packed(text, words, tmp_path / "out")
        else:
            packed(text, words, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(ValueError, match=r"other settings or sources \(documents: default -> line\): give the same to resume it, another --output_dir"):
        packed(text, words, tmp_path / "out", "line")
    with pytest.raises(ValueError, match=r"\(tokenizer: \w+ -> \w+\)"):
        packed(text, load_tokenizer(str(tiny_deberta)), tmp_path / "out")
    with pytest.raises(ValueError, match=r"\(sources: 1 gone \(long.txt\)\)"):
        packed(text[:-1], words, tmp_path / "out")
    with pytest.raises(ValueError, match=r"\(sources: in another order\)"):
        packed(text[::-1], words, tmp_path / "out")
    (tmp_path / "text/files/00.txt").write_text("changed")
    (tmp_path / "text/files/new.txt").write_text("new")
    with pytest.raises(ValueError, match=r"\(sources: 1 new \(files/new.txt\), 1 changed \(files/00.txt\)\)"):
        packed(text, words, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_folder_in_which_another_process_packs_is_refused(words, text, tmp_path):
    (tmp_path / "out/unfinished").mkdir(parents=True)
    with (tmp_path / "out/unfinished/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is packing into .*out: wait for it"):
            packed(text, words, tmp_path / "out")
    assert packed(text, words, tmp_path / "out").made


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tiny_bert, small_disk, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n\n".join(story(100, seed) for seed in range(800)))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4_100_000))
    assert main(command([tmp_path / "a.txt"], tiny_bert, small_disk / "out")) == 1
    assert "No space left on device" in capsys.readouterr().err
    filler.unlink()
    assert main(command([tmp_path / "a.txt"], tiny_bert, small_disk / "out")) == 0
    assert main(command([tmp_path / "a.txt"], tiny_bert, tmp_path / "out")) == 0
    assert content(small_disk / "out") == content(tmp_path / "out")


def test_mistakes_are_one_line_and_write_nothing(tiny_bert, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for given, expected in (("latin.txt", "is not UTF-8"), ("nothing.txt", "no file or folder")):
        assert main(command([tmp_path / given], tiny_bert, tmp_path / "out")) == 1
        assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ") and expected in line]
    assert not (tmp_path / "out").exists()
