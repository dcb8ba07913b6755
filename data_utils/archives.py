"""Archives as the data sets come in: one folder, unpacked where it is to be; never outside of it."""
import gzip
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath


def extract_zip(archive: Path, target: Path) -> None:
    """Unpack the files of a zip's one folder into `target`, without its sub-folders (`original/`: the same data in other forms).

    ValueError for a damaged archive and for a member whose path leads out of the folder; then nothing is written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            for info in members:
                _check_inside(archive, info.orig_filename)
            for info in members:
                folder, _, name = info.filename.rpartition("/")
                if "/" not in folder and folder != "__MACOSX" and not name.startswith("."):
                    with opened.open(info) as source, (target / name).open("wb") as copy:
                        shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive}: not a sound zip archive ({error}); remove it and run this again") from error


def extract_tar(archive: Path, target: Path) -> None:
    """Unpack the one folder of a tar as `target`, an empty folder, whole with its sub-folders.

    ValueError for a damaged archive and for one that holds anything but one folder of files; then nothing, or a part, is written, and
    never outside of `target`.
    """
    try:
        with tarfile.open(archive) as opened:
            found = [(member, PurePosixPath(member.name).parts) for member in opened.getmembers()]
            roots = sorted({parts[0] for _, parts in found if parts})
            if len(roots) != 1:
                raise ValueError(f"{archive}: expected one folder, found {', '.join(roots) or 'nothing'}; nothing is unpacked")
            for member, parts in found:
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{archive}: the member {member.name!r} is not a file; nothing is unpacked")
                _check_inside(archive, member.name)
            for member, parts in found:
                place = target.joinpath(*parts[1:])
                (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
                if member.isfile():
                    with opened.extractfile(member) as source, place.open("wb") as copy:
                        shutil.copyfileobj(source, copy)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive}: not a sound tar archive ({error}); remove it and run this again") from error


def _check_inside(archive: Path, member: str) -> None:
    """ValueError for a member's path that leads out of the folder which the archive is unpacked into."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or set("\\:") & set(member):
        raise ValueError(f"{archive}: the member {member!r} leads out of its folder; nothing is unpacked")
