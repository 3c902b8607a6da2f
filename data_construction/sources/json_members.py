r"""The members of a JSON list or object as text, one at a time: a broken one spoils itself, not those after it.

A scanner that follows strings and brackets only; what is between them is for `json.loads`, so that NaN, huge numbers
and doubled keys mean in a list what they mean in a line. A line break inside a string, or an end of the file inside a
member, shows that the member is broken: scanning begins again at the next line that begins as a member does.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

PIECE = 1 << 20  # characters read at once
MAX_MEMBER_CHARS = 256 * 1024 * 1024  # as many as a picture of 128 MiB has in base64, and some more
WRAPPERS = ("data", "rows", "examples", "items", "records", "samples", "instances", "train", "validation", "test")
_OUTSIDE, _INSIDE = re.compile(r'["\[\]{},]'), re.compile(r'["\\]')
_CLOSES = {"[": "]", "{": "}"}
_WRAPPER = re.compile(rf'\s*"({"|".join(WRAPPERS)})"\s*:\s*\[')
_NAMED = re.compile(r'"(?:[^"\\]|\\.)*"\s*:\s*\{')


@dataclass(frozen=True)
class Member:
    """The text of a member (of an object: with its name), and what is wrong with its brackets or strings; or, without
    a text, the end of a document.
    """

    text: str
    in_object: bool = False
    problem: str = ""
    ends: bool = False


class Members:
    """Scans documents, mostly one; `wrapper` is the name of the list that the document, where it is a wrapping object,
    holds its rows in, "" for none.
    """

    def __init__(self, file: TextIO):
        self.wrapper = ""
        self._file = file
        self._again = deque[str]()  # lines of a broken member that are scanned once more
        self._open: list[str] = []  # closing brackets to come
        self._base = 0  # number of brackets around members; 0: the document has not begun
        self._text: list[str] = []
        self._length = 0
        self._in_string = self._ended = False

    def __iter__(self) -> Iterator[Member]:
        skip_to: int | None = None  # after a broken member: the largest indentation of what may be the next one
        fresh = True  # at the beginning of a line
        while True:
            if not (piece := self._piece()):
                if not (broken := self._unfinished()):
                    return
                skip_to, fresh = self._indentation(), True
                yield self._drop(broken)
                continue
            if skip_to is not None and fresh and self._begins_document(piece, skip_to):
                self._open, self._base, self._ended, skip_to = [], 0, True, None
                yield Member("", ends=True)
            if skip_to is None or (fresh and self._may_begin(piece, skip_to)):
                skip_to = None
                yield from self._scan(piece)
                if self._in_string and piece.endswith("\n"):
                    if self._base == 0:
                        yield self._drop(self._no_document())
                        return
                    skip_to = self._indentation()
                    yield self._drop("a line break inside a string")
            fresh = piece.endswith("\n")
            if self._length > MAX_MEMBER_CHARS:
                yield self._drop(f"longer than {MAX_MEMBER_CHARS >> 20} Mi characters, the rest is lost")
                return

    def _piece(self) -> str:
        if self._again:
            return self._again.popleft()
        piece = self._file.readline(PIECE)
        if (len(piece) - len(piece.rstrip("\\"))) % 2:
            piece += self._file.read(1)  # what a backslash escapes stays with it
        return piece

    def _scan(self, piece: str) -> Iterator[Member]:
        position = 0
        while match := (_INSIDE if self._in_string else _OUTSIDE).search(piece, position):
            self._add(piece[position : match.end()])
            position = match.end()
            if match[0] == '"':
                self._in_string = not self._in_string
            elif match[0] == "\\":
                self._add(piece[position : position + 1])
                position += 1
            else:
                yield from self._bracket(match[0])
        self._add(piece[position:])

    def _bracket(self, sign: str) -> Iterator[Member]:
        depth = len(self._open)
        if sign in _CLOSES:
            before = "".join(self._text) if depth < 2 else ""
            self._open.append(_CLOSES[sign])
            if depth == 0 and not before[:-1].strip():
                self._base, self._ended, self.wrapper = 1, False, ""
                self._clear()
            elif depth == self._base == 1 and self._open[0] == "}" and (match := _WRAPPER.fullmatch(before)):
                self._base, self.wrapper = 2, match[1]
                self._clear()
            elif depth == self._base == 1 and self._open == ["}", "}"] and not before[:-1].strip():
                yield Member("", True, "it is not closed")  # no field begins so: it is the next document
                yield Member("", ends=True)
                self._open, self.wrapper = ["}"], ""
                self._clear()
        elif depth == self._base > 0 and sign in (",", self._open[-1]):
            yield from self._member()
            if sign != ",":
                self._open.pop()
                self._base -= 1
                self._ended = self._base == 0
                if self._ended:
                    yield Member("", ends=True)
        elif depth and sign == self._open[-1]:
            self._open.pop()

    def _member(self) -> Iterator[Member]:
        text = "".join(self._text)[:-1]
        in_object = self._base == 1 and self._open[0] == "}"
        self._clear()
        if text.strip() and not (in_object and self.wrapper):
            yield Member(text, in_object)

    def _unfinished(self) -> str:
        """What is wrong at the end of the file, "" for nothing. Lines that may hold members are scanned once more."""
        text = "".join(self._text)
        if not text.strip():
            return "the file ends before its list or object does" if self._open and not self._ended else ""
        if self._base == 0:
            return self._no_document()
        lines = text.lstrip().splitlines(keepends=True)[1:]
        indentation = self._indentation()
        begins = [number for number, line in enumerate(lines) if self._may_begin(line, indentation)]
        self._again.extend(lines[begins[0] :] if begins else [])
        return "it is not closed" if begins else "the file ends inside it, the rest is lost"

    def _no_document(self) -> str:
        return "text after the end of the document, the rest is lost" if self._ended else "neither a list nor an object"

    def _may_begin(self, line: str, indentation: int) -> bool:
        text = line.lstrip(" \t\r")
        closing = self._open[self._base - 1]
        begins = text.startswith("{") if closing == "]" else _NAMED.match(text) is not None
        begins = len(line) - len(text) <= indentation and (begins or text.startswith(closing))
        return begins or self._begins_document(line, indentation)

    def _begins_document(self, line: str, indentation: int) -> bool:
        """Whether a line stands outside the fields of an object, by its indentation, and begins the next document."""
        text = line.lstrip(" \t\r")
        in_fields = self._base == 1 and self._open[0] == "}"
        return in_fields and text.startswith("{") and len(line) - len(text) < indentation

    def _indentation(self) -> int:
        text = "".join(self._text)
        return len(text[: len(text) - len(text.lstrip())].rpartition("\n")[2])

    def _drop(self, problem: str) -> Member:
        member = Member("".join(self._text), self._base == 1 and self._open[0] == "}", problem)
        self._open, self._in_string = self._open[: self._base], False
        if not self._again and self._base == 0:
            self._ended = True
        if problem.startswith("the file ends"):
            self._open, self._base, self._ended = [], 0, True
        self._clear()
        return member

    def _clear(self) -> None:
        self._text.clear()
        self._length = 0

    def _add(self, text: str) -> None:
        self._text.append(text)
        self._length += len(text)
