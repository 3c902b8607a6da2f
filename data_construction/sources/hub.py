"""Where a source's files are: a local file or folder, or a data set of the Hugging Face hub, downloaded once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from safer_steer.errors import UserError

_HUB_ID = re.compile(r"(?:hub:)?(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Place:
    """A data folder; `file` when the path named one file; `store` holds what a downloaded folder links to."""

    root: Path
    file: Path | None = None
    store: Path | None = None


def locate(path: str | Path, patterns: Sequence[str], *, local_only: bool = False) -> Place:
    """Finds a source's files.

    Args:
        path: a local file or folder, or a hub id: "ORG/NAME", "ORG/NAME@REVISION", with or without "hub:" before it;
            with it where there is a local folder ORG.
        patterns: the files to download, globs relative to the data set's root.
        local_only: take what an earlier download left, never the network.

    Raises:
        UserError: there is no such file, folder or data set, or it cannot be downloaded.
    """
    local = Path(path)
    if local.is_file():
        return Place(local.parent, local)
    if local.is_dir():
        return Place(local)
    match = _HUB_ID.fullmatch(str(path))
    if match is None:
        raise UserError(f"seeds not found: {path}; correct sources.*.path, or make the file first")
    if not str(path).startswith("hub:") and local.parent.is_dir():
        raise UserError(
            f"seeds not found: {path} is no file or folder, but {local.parent} is a local folder; correct "
            f"sources.*.path, or write hub:{path} if you mean the hub's data set"
        )
    return _download(str(path), match["id"], match["revision"], patterns, local_only)


def _download(path: str, hub_id: str, revision: str | None, patterns: Sequence[str], local_only: bool) -> Place:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def snapshot(local: bool) -> Place:
        folder = snapshot_download(
            hub_id, repo_type="dataset", revision=revision, allow_patterns=list(patterns), local_files_only=local
        )
        return Place(Path(folder), store=Path(folder).parents[1])

    what = f"seeds not found: {path} is no local file or folder, and"
    if local_only or (revision and _COMMIT.fullmatch(revision)):  # a commit never changes: no need to ask for it
        try:
            return snapshot(True)
        except LocalEntryNotFoundError as error:
            if local_only:
                raise UserError(
                    f"{what} the hub's data set {hub_id} is not downloaded; correct sources.*.path"
                ) from error
    try:
        return snapshot(False)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, httpx.HTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{what} the hub's data set {hub_id} cannot be downloaded: {reason}; correct sources.*.path, or run "
            "hf auth login if the data set is gated"
        ) from error
