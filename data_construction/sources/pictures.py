"""A record's picture field -> something `load_image` takes, and nothing outside the data folder.

A picture comes in any form of `safer_steer.picture_field` (also as text, as careless exports write objects). Paths are
looked up in the record file's folder, the data folder, the source's picture folders, and its zip or tar archives,
which are read in place and never unpacked.
"""

import ast
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data_construction.sources.archives import Archive
from data_construction.sources.row import BadRow
from safer_steer.errors import ImageError
from safer_steer.picture_field import SeveralPictures, unwrapped
from safer_steer.picture_files import is_file, located, spellings

OUTSIDE = "picture outside the data folder"


class Pictures:
    """Finds the pictures of one data folder; its archives stay open until `close`.

    Args:
        root: the data folder. A picture whose real path is not below it, or below `store`, is refused.
        store: where a hub download keeps the files that `root` links to.
        folders: further folders, relative to `root` or inside an archive, in which paths are looked up.
        archives: zip or tar files, relative to `root`, with pictures in them; those that are not there are left out.
    """

    def __init__(
        self, root: Path, store: Path | None = None, folders: Sequence[str] = (), archives: Sequence[str] = ()
    ):
        self._root, self._real_root = root, root.resolve()
        self._real_store = store.resolve() if store else None
        self._folders = list(folders)
        self._archives = [Archive(root / name) for name in archives if (root / name).is_file()]

    def find(self, value: Any, folder: Path) -> Any:
        """The picture that a record in `folder` names, for `load_image`: its bytes or its path; None when it names
        none.

        Raises:
            BadRow: several pictures, a URL, broken base64, a name that is in none of several places, or a path outside
                the data folder.
        """
        try:
            value = unwrapped(_parsed(value))
        except SeveralPictures as error:
            raise BadRow("several pictures", f"{error}; a seed has one") from error
        except ImageError as error:
            raise BadRow("unusable picture", str(error)) from error
        return self._locate(value, folder) if isinstance(value, str) else value

    def _locate(self, value: str, folder: Path) -> Path | bytes:
        places = dict.fromkeys((folder, self._root, *(self._root / inner for inner in self._folders)))
        paths = {place: located(place, value) for place in places}
        inside = {place: path for place, path in paths.items() if self._is_inside(path)}
        if not inside:
            raise BadRow(OUTSIDE, f"picture {value!r:.200} leads out of {self._root}")
        found = next((path for path in inside.values() if is_file(path)), None) or self._from_archives(value)
        if found is not None:
            return found
        tried = [*inside, *(archive.path for archive in self._archives)]
        if len(tried) > 1:
            said = ", ".join(map(str, tried))
            raise BadRow("unusable picture", f"picture not found: {value!r:.200}; looked for in {said}")
        return next(iter(inside.values()))  # whoever loads it says that it is missing

    def _is_inside(self, path: Path) -> bool:
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links: it names no file
            return True
        if real.is_relative_to(self._real_root):
            return True
        named_inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self._root))
        return named_inside and self._real_store is not None and real.is_relative_to(self._real_store)

    def _from_archives(self, value: str) -> bytes | None:
        for archive in self._archives:
            for inner in ("", *self._folders):
                for name in spellings(value):
                    if (data := archive.read(PurePosixPath(inner) / name)) is not None:
                        return data
        return None

    def close(self) -> None:
        """Closes the archives."""
        for archive in self._archives:
            archive.close()


def _parsed(value: Any) -> Any:
    """An object or list that a table holds as text; anything else as it is."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return _parsed(value[0])
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            return found if isinstance(found, Mapping | list) else value
    return value
