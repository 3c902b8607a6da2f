"""Pictures read out of a zip or an uncompressed tar, in place: nothing is unpacked, so no member can be written."""

import tarfile
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

from data_construction.sources.row import BadRow
from safer_steer import picture_decode
from safer_steer.errors import UserError


class Archive:
    """Random access to the regular files of one archive; a folder that holds all of them may be left out of names.

    Raises:
        UserError: the file is no zip and no uncompressed tar.
    """

    def __init__(self, path: Path):
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            if zipfile.is_zipfile(path):
                self._zip = zipfile.ZipFile(path)
                members = {item.filename: item for item in self._zip.infolist() if not item.is_dir()}
            else:
                self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by close()
                members = {item.name: item for item in self._tar if item.isfile()}
        except Exception as error:  # a damaged file makes these modules raise almost anything
            raise UserError(
                f"{path} is no zip and no uncompressed tar: {error}; download or unpack it again"
            ) from error
        self._members = {_composed(PurePosixPath(name)): item for name, item in members.items()}
        tops = {name.parts[0] for name in self._members if len(name.parts) > 1}
        self._top = PurePosixPath(tops.pop()) if len(tops) == 1 else PurePosixPath()

    def read(self, name: PurePosixPath) -> bytes | None:
        """The bytes of a member, or None when it is not there.

        Raises:
            BadRow: the member is damaged or larger than a picture file may be.
        """
        name = _composed(name)
        member = self._members.get(name) or self._members.get(self._top / name)
        if member is None:
            return None
        size = member.file_size if self._zip else member.size
        if size > picture_decode.MAX_FILE_BYTES:
            limit = picture_decode.MAX_FILE_BYTES >> 20
            raise BadRow("unusable picture", f"{name} in {self.path.name} is above {limit} MiB")
        try:
            return self._zip.read(member) if self._zip else self._tar.extractfile(member).read()
        except Exception as error:  # also of encrypted members and of compressions that are not there
            raise BadRow("unusable picture", f"{name} in {self.path.name} cannot be read: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        (self._zip or self._tar).close()


def _composed(name: PurePosixPath) -> PurePosixPath:
    """The name with composed accents (NFC) and slashes: archives of some systems hold others, metadata does not."""
    return PurePosixPath(unicodedata.normalize("NFC", str(name).replace("\\", "/")))
