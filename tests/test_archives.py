"""Archives that are unpacked: IMDb's tar, put there by hand or fetched, damaged or hostile."""

import io
import tarfile

import pytest

from data_utils.archives import extract_tar
from data_utils.download_glue_data import Remote, main
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from tests.test_download import files_below

REVIEWS = {f"aclImdb/{split}/{label}_{rating}.txt": text for split in ("train", "test")
           for label, rating, text in (("neg/0", 3, "dull"), ("pos/0", 9, "fine"))}
UNKNOWN = Remote("https://nowhere.invalid/aclImdb_v1.tar.gz")


def tarred(files: dict[str, str], *links: tuple[str, str]) -> bytes:
    """A tar.gz of files {name: text} and symbolic links (name, target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def test_an_archive_without_a_checksum_is_not_fetched_but_unpacked_where_it_lies(tmp_path, capsys):
    words, sources = ["--data_dir", str(tmp_path / "glue"), "--tasks", "imdb"], (("IMDb", (UNKNOWN,)),)
    assert main(words, sources) == 1
    said = capsys.readouterr().err
    assert "no checksum of it is known here" in said and f"{UNKNOWN.url}  ->  {tmp_path}/glue/aclImdb_v1.tar.gz" in said
    (tmp_path / "glue" / "aclImdb_v1.tar.gz").write_bytes(tarred({**REVIEWS, "aclImdb/README": "read me"}))
    assert main(words, sources) == 0
    assert "unpacked as it is" in capsys.readouterr().out
    assert files_below(tmp_path / "glue") == {*REVIEWS, "aclImdb/README", "aclImdb_v1.tar.gz", "checksums.json"}
    assert [example.texts for example in read_examples(get_task("imdb"), "test", tmp_path / "glue")] == [("dull",), ("fine",)]
    assert main(words, sources) == 0 and "already there; 2 files verified, 0 without" in capsys.readouterr().out
    (tmp_path / "glue/aclImdb/test/pos/0_9.txt").write_text("mine")
    assert main(words, sources) == 1 and "aclImdb/test is left as it is, but its sha256" in capsys.readouterr().err


def test_one_with_a_checksum_is_fetched_and_removed_once_it_is_unpacked(server, tmp_path):  # noqa: F811
    assert main(["--data_dir", str(tmp_path), "--tasks", "all"], (("IMDb", (server.add("imdb.tar.gz", tarred(REVIEWS)),)),)) == 0
    assert files_below(tmp_path) == {*REVIEWS, "checksums.json"}


def test_all_means_what_can_be_fetched(server, tmp_path):  # noqa: F811
    sources = (("AX", (server.add("AX.tsv", b"index\tsentence1\tsentence2\n0\ta\tb\n"),)), ("IMDb", (UNKNOWN,)))
    assert main(["--data_dir", str(tmp_path), "--tasks", "all"], sources) == 0


@pytest.mark.parametrize("content, message", [
    (b"not a tar", "not a sound tar archive"),
    (tarred(REVIEWS)[:120], "not a sound tar archive"),
    (tarred({}), "expected one folder, found nothing"),
    (tarred({**REVIEWS, "other/x.txt": "x"}), "expected one folder, found aclImdb, other"),
    (tarred({"/tmp/evil.txt": "x", **REVIEWS}), "expected one folder, found /, aclImdb"),
    (tarred({**REVIEWS, "aclImdb/../../evil.txt": "x"}), "leads out of its folder"),
    (tarred(REVIEWS, ("aclImdb/train/unsup", "/etc")), "the member 'aclImdb/train/unsup' is not a file"),
    (tarred({"aclImdb/train/neg/0_3.txt": "x"}), "expected a folder with the reviews of the class 'pos', found none")],
    ids=["text", "cut off", "empty", "two folders", "an absolute path", "a path that leads out", "a link", "a class missing"])  # bytes hold the time
def test_a_damaged_or_hostile_archive_leaves_nothing_behind(content, message, tmp_path, capsys):
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue" / "aclImdb_v1.tar.gz").write_bytes(content)
    assert main(["--data_dir", str(tmp_path / "glue"), "--tasks", "IMDb"], (("IMDb", (UNKNOWN,)),)) == 1
    assert message in capsys.readouterr().err
    assert files_below(tmp_path) == {"glue/aclImdb_v1.tar.gz"} and [path.name for path in (tmp_path / "glue").iterdir()] == ["aclImdb_v1.tar.gz"]


def test_a_refused_archive_writes_no_file(tmp_path):
    archive, target = tmp_path / "x.tar.gz", tmp_path / "target"
    target.mkdir()
    archive.write_bytes(tarred({"aclImdb/good.txt": "x", "aclImdb/../../evil.txt": "x"}))
    with pytest.raises(ValueError, match="nothing is unpacked"):
        extract_tar(archive, target)
    assert files_below(target) == set()
