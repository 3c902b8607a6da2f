"""What the machine's own failures mean for the user: a full disk, a folder without access, too little memory.

Input: an exception, or the text of a log. Output: one line with the next step, or nothing where it is another failure.
"""

import errno
import re
import sqlite3
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM)
IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
BROKEN = (errno.EIO, errno.ESTALE, errno.ENOTCONN)
AGAIN = "then run the same command again: what is finished is kept"
# Libraries that write by themselves (safetensors, torch, SQLite) say it in their own words.
_FULL_TEXT = re.compile(
    r"No space left on device|os error (?:27|28|122)\b|PytorchStreamWriter failed|database or disk is full"
)
_NO_ACCESS_TEXT = re.compile(r"Read-only file system|os error 30\b|attempt to write a readonly database")
_MEMORY_TEXT = re.compile(
    r"out of memory|OutOfMemory|MemoryError|can't allocate memory|Cannot allocate memory|oom-kill|No available memory|"
    r"larger than the available KV cache memory|less than desired GPU memory utilization",
    re.IGNORECASE,
)


def is_out_of_memory(problem: BaseException | str) -> bool:
    """Whether an exception, or a log's text, says that GPU or main memory was used up."""
    if isinstance(problem, str):
        return bool(_MEMORY_TEXT.search(problem))
    return any(isinstance(error, MemoryError) or _says(error, _MEMORY_TEXT) for error in _chain(problem))


def explain(problem: BaseException) -> str | None:
    """One line for a failure of the machine, None for any other exception."""
    for error in _chain(problem):
        number = error.errno if isinstance(error, OSError) else None
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        said = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        if number in FULL or _says(error, _FULL_TEXT):
            return f"the disk is full: cannot write{where} ({said}); free space or raise the limit, {AGAIN}"
        if number in NO_ACCESS or _says(error, _NO_ACCESS_TEXT):
            return f"no access to{where or ' a file'} ({said}); give this user the right to write there, {AGAIN}"
        if number in IN_THE_WAY:
            return f"{said}:{where}: a file is where a folder should be, or the other way round; move it, {AGAIN}"
        if number in BROKEN or (isinstance(error, sqlite3.Error) and "disk I/O error" in said):
            return f"the disk failed{where and ' at' + where} ({said}); see the system's log, {AGAIN}"
        if number == errno.EMFILE:
            return f"too many open files ({said}); raise the limit (ulimit -n) or lower concurrency, {AGAIN}"
    if is_out_of_memory(problem):
        said = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
        return f"out of memory ({said}); lower the batch or the sizes in the config, or use a larger machine, {AGAIN}"
    return None


def in_one_line(problem: BaseException) -> str:
    """Type and last line of an exception; of one that Ray passes on, those of what went wrong in its worker."""
    while isinstance(cause := getattr(problem, "cause", None), BaseException):
        problem = cause
    return f"{type(problem).__name__}: {(str(problem).strip().splitlines() or [''])[-1]}"[:300]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what caused it, newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _says(error: BaseException, words: re.Pattern) -> bool:
    return isinstance(error, Exception) and bool(words.search(f"{type(error).__name__}: {error}"))
