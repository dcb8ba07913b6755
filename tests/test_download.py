"""The download script against a server on this machine: resume, wrong checksums, dead addresses, hostile archives, MRPC."""
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from data_utils import download_glue_data as download
from data_utils.download_glue_data import DownloadError, Remote, fetch, main
from data_utils.download_sources import SQUAD_HOST
from data_utils.readers import read_examples
from data_utils.tasks import TASKS, get_task

REPOSITORY = Path(__file__).resolve().parent.parent
REAL = REPOSITORY.parent / "shared" / "data" / "glue"
RTE_FILES = {"RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
             "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tc\td\tnot_entailment\n",
             "RTE/test.tsv": "index\tsentence1\tsentence2\n0\te\tf\n"}


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


BODY = bytes(range(256)) * 40


def test_an_interrupted_download_is_continued_where_it_stopped(server, tmp_path):
    remote, server.cut = server.add("x.zip", BODY), 3000
    assert fetch(remote, tmp_path / "x.zip").read_bytes() == BODY
    assert server.log == [("x.zip", None), ("x.zip", "bytes=3000-")]
    assert files_below(tmp_path) == {"x.zip"}


def test_a_part_of_an_earlier_run_is_continued(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(BODY[:1234])
    assert fetch(server.add("x.zip", BODY), tmp_path / "x.zip").read_bytes() == BODY
    assert server.log == [("x.zip", "bytes=1234-")]


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(BODY)
    assert fetch(server.add("x.zip", BODY), tmp_path / "x.zip").read_bytes() == BODY
    assert server.log == []


def test_a_server_without_ranges_is_fetched_from_the_beginning(server, tmp_path):
    server.ranges = False
    (tmp_path / "x.zip.part").write_bytes(BODY[:1234])
    assert fetch(server.add("x.zip", BODY), tmp_path / "x.zip").read_bytes() == BODY


def test_a_part_of_another_file_is_dropped_and_the_file_fetched_afresh(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(b"something else entirely")
    assert fetch(server.add("x.zip", BODY), tmp_path / "x.zip").read_bytes() == BODY
    assert [wanted for _, wanted in server.log] == ["bytes=23-", None]


def test_a_wrong_checksum_is_refused_at_once_and_nothing_is_left(server, tmp_path):
    remote = server.add("x.zip", BODY)
    server.files["x.zip"] = BODY[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"expected {len(BODY)} bytes with sha256 {remote.sha256}, found {len(BODY)} bytes"):
        fetch(remote, tmp_path / "x.zip")
    assert files_below(tmp_path) == set() and len(server.log) == 1


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    remote, server.errors = server.add("x.zip", BODY), [503, 500]
    assert fetch(remote, tmp_path / "x.zip").read_bytes() == BODY and len(server.log) == 3
    del server.files["x.zip"]
    with pytest.raises(DownloadError, match=r"/x\.zip: HTTP 404 Not Found \(attempt 1 of 4\)"):
        fetch(remote, tmp_path / "y.zip")
    assert len(server.log) == 4


def test_a_server_that_always_breaks_off_is_given_up_and_the_part_kept(server, tmp_path):
    remote = Remote(server.add("x.zip", BODY[:100]).url, len(BODY), "0" * 64)
    with pytest.raises(DownloadError, match=f"ended after 100 of {len(BODY)} bytes"):
        fetch(remote, tmp_path / "x.zip", tries=1)
    assert (tmp_path / "x.zip.part").read_bytes() == BODY[:100]


def test_a_file_put_there_by_hand_is_verified_and_taken(server, tmp_path):
    remote = server.add("x.zip", BODY)
    (tmp_path / "x.zip").write_bytes(BODY)
    fetch(remote, tmp_path / "x.zip")
    (tmp_path / "x.zip").write_bytes(b"<html>")
    with pytest.raises(DownloadError, match="found 6 bytes"):
        fetch(remote, tmp_path / "x.zip")
    assert server.log == [] and (tmp_path / "x.zip").read_bytes() == b"<html>"


@pytest.mark.parametrize("asked, fetched", [((), {"RTE"}), (("--tasks", "glue"), {"RTE"}), (("--tasks", "SuperGLUE"), {"RTE", "COPA"}),
                                            (("--tasks", "all"), {"RTE", "COPA"})])
def test_a_benchmark_is_fetched_by_its_name(asked, fetched, server, tmp_path):
    choices = {f"COPA/{split}.jsonl": "{}" for split in ("train", "val", "test")}
    sources = tuple((name, (server.add(f"{name}.zip", zipped(files)),)) for name, files in (("RTE", RTE_FILES), ("COPA", choices)))
    assert main(["--data_dir", str(tmp_path), *asked], sources) == 0
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == fetched


def test_a_task_with_a_file_for_each_split_is_fetched_file_by_file(server, tmp_path):
    names = ("train-v1.1.json", "dev-v1.1.json")
    assert main(["--data_dir", str(tmp_path), "--tasks", "SQuAD"], (("SQuAD", tuple(server.add(name, name.encode()) for name in names)),)) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "SQuAD").iterdir()} == dict(zip(names, names))
    assert {path.name for path in tmp_path.iterdir()} == {"SQuAD", "checksums.json"}


def test_a_task_is_fetched_unpacked_recorded_and_then_left_alone(server, tmp_path, capsys):
    extra = {"RTE/README.txt": "read me", "RTE/original/train.tsv": "old", "__MACOSX/train.tsv": "junk", "RTE/.DS_Store": "junk"}
    sources = (("RTE", (server.add("RTE.zip", zipped({**RTE_FILES, **extra})),)),)
    assert main(["--data_dir", str(tmp_path), "--tasks", "rte"], sources) == 0
    assert files_below(tmp_path) == {*RTE_FILES, "RTE/README.txt", "checksums.json"}
    assert read_examples(get_task("rte"), "dev", tmp_path)[0].texts == ("c", "d")
    assert json.loads((tmp_path / "checksums.json").read_text()) == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in RTE_FILES.items()}
    assert main(["--data_dir", str(tmp_path)], sources) == 0
    assert len(server.log) == 1 and "already there; 3 files verified, 0 without" in capsys.readouterr().out


def test_a_file_changed_since_is_reported_and_never_overwritten(server, tmp_path, capsys):
    sources = (("RTE", (server.add("RTE.zip", zipped(RTE_FILES)),)),)
    main(["--data_dir", str(tmp_path)], sources)
    (tmp_path / "RTE/dev.tsv").write_text("mine")
    assert main(["--data_dir", str(tmp_path)], sources) == 1
    assert (tmp_path / "RTE/dev.tsv").read_text() == "mine" and "RTE/dev.tsv is left as it is" in capsys.readouterr().err


def test_only_the_missing_files_of_a_folder_are_added_and_a_differing_one_stops_it(server, tmp_path, capsys):
    sources = (("RTE", (server.add("RTE.zip", zipped({**RTE_FILES, "RTE/README.txt": "theirs"})),)),)
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE/dev.tsv").write_text("mine")
    (tmp_path / "RTE/README.txt").write_text("mine")
    assert main(["--data_dir", str(tmp_path)], sources) == 1
    assert "file that is already there has" in capsys.readouterr().err
    assert files_below(tmp_path) == {"RTE/dev.tsv", "RTE/README.txt", "RTE.zip"}
    (tmp_path / "RTE/dev.tsv").write_text(RTE_FILES["RTE/dev.tsv"])
    assert main(["--data_dir", str(tmp_path)], sources) == 0
    assert files_below(tmp_path) == {*RTE_FILES, "RTE/README.txt", "checksums.json"}
    assert (tmp_path / "RTE/README.txt").read_text() == "mine"


def test_files_that_came_another_way_are_said_to_be_unverified_then_watched(server, tmp_path, capsys):
    for name, text in RTE_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    sources = (("RTE", (server.add("RTE.zip", b"never fetched"),)),)
    assert main(["--data_dir", str(tmp_path)], sources) == 0
    assert "0 files verified, 3 without a checksum to compare with" in capsys.readouterr().out and server.log == []
    (tmp_path / "RTE/test.tsv").write_text("changed")
    assert main(["--data_dir", str(tmp_path)], sources) == 1


def test_a_failed_task_says_what_to_do_by_hand_and_the_others_go_on(server, tmp_path, capsys):
    dead = Remote(f"http://127.0.0.1:{server.server_port}/WNLI.zip", 5, "0" * 64)
    sources = (("WNLI", (dead,)), ("RTE", (server.add("RTE.zip", zipped(RTE_FILES)),)))
    assert main(["--data_dir", str(tmp_path)], sources) == 1
    error = capsys.readouterr().err
    for part in (dead.url, "HTTP 404", str(tmp_path / "WNLI.zip"), f"train.tsv, dev.tsv, test.tsv of a copy into {tmp_path / 'WNLI'}/", "--tasks WNLI"):
        assert part in error
    assert (tmp_path / "RTE/train.tsv").is_file() and not (tmp_path / "WNLI").exists()


@pytest.mark.parametrize("member", ["../evil.tsv", "/tmp/evil.tsv", "RTE/../../evil.tsv", "RTE\\..\\evil.tsv", "C:evil.tsv"])
def test_an_archive_that_leads_out_of_its_folder_is_not_unpacked(server, tmp_path, capsys, member):
    sources = (("RTE", (server.add("RTE.zip", zipped({**RTE_FILES, member: "evil"})),)),)
    assert main(["--data_dir", str(tmp_path / "glue")], sources) == 1
    assert "leads out of its folder" in capsys.readouterr().err
    assert files_below(tmp_path) == {"glue/RTE.zip"}


def test_a_damaged_or_incomplete_archive_leaves_no_half_folder(server, tmp_path, capsys):
    for data, message in ((b"not a zip", "not a sound zip archive"), (zipped({"RTE/train.tsv": "x"}), "RTE/dev.tsv is not in what was fetched")):
        assert main(["--data_dir", str(tmp_path)], (("RTE", (server.add("RTE.zip", data),)),)) == 1
        assert message in capsys.readouterr().err
        assert files_below(tmp_path) == {"RTE.zip"} and [path.name for path in tmp_path.iterdir()] == ["RTE.zip"]
        (tmp_path / "RTE.zip").unlink()


def test_the_diagnostic_set_lands_where_the_reader_looks(server, tmp_path):
    sources = (("AX", (server.add("AX.tsv", b"index\tsentence1\tsentence2\n0\ta\tb\n"),)),)
    assert main(["--data_dir", str(tmp_path)], sources) == 0
    assert len(read_examples(get_task("ax"), "test", tmp_path)) == 1 and files_below(tmp_path) == {"diagnostic/diagnostic.tsv", "checksums.json"}


HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def mrpc_sources(server):
    return (("MRPC", (server.add("msr_paraphrase_train.txt", f"\ufeff{HEADER}1\t1\t2\ta\tb\n0\t3\t4\tc\td\n1\t5\t6\te\tf\n".encode()),
                      server.add("msr_paraphrase_test.txt", f"\ufeff{HEADER}1\t7\t8\tg\th\r\n0\t9\t10\ti\tj\r\n".encode()),
                      server.add("mrpc_dev_ids.tsv", b"3\t4\n"))),)


def test_mrpc_is_assembled_and_its_test_set_loses_the_labels(server, tmp_path, capsys):
    assert main(["--data_dir", str(tmp_path)], mrpc_sources(server)) == 0
    assert (tmp_path / "MRPC/train.tsv").read_text() == f"{HEADER}1\t1\t2\ta\tb\n1\t5\t6\te\tf\n"
    assert (tmp_path / "MRPC/dev.tsv").read_text() == f"{HEADER}0\t3\t4\tc\td\n"
    assert (tmp_path / "MRPC/test.tsv").read_text() == "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tg\th\n1\t9\t10\ti\tj\n"
    assert "tokenised" in capsys.readouterr().out and files_below(tmp_path) == {
        "MRPC/train.tsv", "MRPC/dev.tsv", "MRPC/test.tsv", "checksums.json"}


def test_microsofts_own_mrpc_files_are_used_where_both_are_there(server, tmp_path, capsys):
    sources = mrpc_sources(server)
    (tmp_path / "MRPC").mkdir()
    (tmp_path / "MRPC/msr_paraphrase_train.txt").write_text(f"{HEADER}1\t3\t4\town\ttext\n")
    assert main(["--data_dir", str(tmp_path)], sources) == 1
    assert "but not its counterpart" in capsys.readouterr().err and server.log == []
    (tmp_path / "MRPC/msr_paraphrase_test.txt").write_text(f"{HEADER}1\t7\t8\town\ttest\n")
    assert main(["--data_dir", str(tmp_path)], sources) == 0
    assert (tmp_path / "MRPC/dev.tsv").read_text() == f"{HEADER}1\t3\t4\town\ttext\n"
    assert [name for name, _ in server.log] == ["mrpc_dev_ids.tsv"] and "tokenised" not in capsys.readouterr().out


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not there")
def test_the_real_corpus_gives_the_real_splits(tmp_path):
    download.assemble_mrpc((REAL / "MRPC/msr_paraphrase_train.txt", REAL / "MRPC/msr_paraphrase_train.txt", REAL / "MRPC/dev_ids.tsv"), tmp_path)
    for name in ("train.tsv", "dev.tsv"):
        assert (tmp_path / name).read_bytes() == (REAL / "MRPC" / name).read_bytes().removeprefix(b"\xef\xbb\xbf")
    ids = {remote.name: remote for remote in dict(download.SOURCES)["MRPC"]}["mrpc_dev_ids.tsv"]
    assert download.sha256_of(REAL / "MRPC/dev_ids.tsv") == ids.sha256


def test_every_task_has_a_source_and_no_two_share_an_address():
    assert [name for name, _ in download.SOURCES] == [task.name for task in TASKS if task.suite and task.name != "demo"]
    known = [remote for name, remotes in download.SOURCES for remote in remotes if name != "IMDb"]
    urls = [remote.url for remote in known]
    assert len(set(urls)) == len(urls) and all(url.startswith(("https://dl.fbaipublicfiles.com/", f"{SQUAD_HOST}/")) for url in urls)
    assert all(len(remote.sha256) == 64 and remote.size > 0 for remote in known)


def test_it_runs_as_a_plain_script_from_the_repository_root(tmp_path):
    command = [sys.executable, "data_utils/download_glue_data.py", "--data_dir", str(tmp_path), "--tasks"]
    ran = subprocess.run([*command, "demo"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0 and "demo: nothing to fetch" in ran.stdout, ran.stderr
    ran = subprocess.run([*command, "MRCP"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 2 and "nearest: MRPC" in ran.stderr
