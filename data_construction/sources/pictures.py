"""A record's picture field -> something `load_image` takes, and nothing outside the data folder.

A picture comes as `{"bytes", "path"}` (also as text, as careless exports write it), a data URL, or a path. Paths are
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
        """The picture that a record in `folder` names, for `load_image`; None when it names none.

        Raises:
            BadRow: several pictures, or one outside the data folder.
        """
        value = _single(value)
        if isinstance(value, Mapping):
            data = value.get("bytes")
            if data:
                return dict(value)
            value = value.get("path")
        if value is None or value == "" or not isinstance(value, str) or value.startswith("data:"):
            return value or None
        return self._locate(value, folder)

    def _locate(self, value: str, folder: Path) -> Path | bytes:
        name = PurePosixPath(value.replace("\\", "/"))
        places = dict.fromkeys((folder, self._root, *(self._root / inner for inner in self._folders)))
        inside = [place / name for place in places if self._is_inside(place / name)]
        if not inside:
            raise BadRow(OUTSIDE, f"picture {value!r:.200} leads out of {self._root}")
        found = next((path for path in inside if _is_file(path)), None)
        return found or self._from_archives(name) or inside[0]  # whoever loads the last one says that it is missing

    def _is_inside(self, path: Path) -> bool:
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links: it names no file
            return True
        if real.is_relative_to(self._real_root):
            return True
        named_inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self._root))
        return named_inside and self._real_store is not None and real.is_relative_to(self._real_store)

    def _from_archives(self, name: PurePosixPath) -> bytes | None:
        for archive in self._archives:
            for inner in ("", *self._folders):
                if (data := archive.read(PurePosixPath(inner) / name)) is not None:
                    return data
        return None

    def close(self) -> None:
        """Closes the archives."""
        for archive in self._archives:
            archive.close()


def _single(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return value
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise BadRow("several pictures", f"{len(value)} pictures; a seed has one")
        return _single(value[0]) if value else None
    return value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
