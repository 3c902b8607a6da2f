"""Reads our Markdown: fenced blocks with the treatment that the comment before them names, links, and inline code.

A treatment stands in a comment before its block, `<!-- test: dry-run -->`:
    run                    each command is run as it stands
    dry-run, help          each command is run with --dry-run or --help appended: it needs a GPU, a key or a long time
    file PATH              the block is written to PATH
    line PATH after TEXT   the block is put into PATH, behind the line TEXT
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.stem != "miniature"),
]
FENCE = re.compile(r"(?:^<!-- test: ([^\n]*?) -->\n)?^(```+)([^\n`]*)\n(.*?)^\2$", re.MULTILINE | re.DOTALL)
APPENDED = {"run": [], "dry-run": ["--dry-run"], "help": ["--help"]}
SHELLS = ("bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language and text, and what the test does with it."""

    page: str
    language: str
    text: str
    treatment: str | None


@dataclass(frozen=True)
class Command:
    """One command of a page: environment, words, and the words as the page has them."""

    page: str
    environment: tuple[tuple[str, str], ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join([*(f"{name}={value}" for name, value in self.environment), *self.words])


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(page.name, language.strip(), text, treatment or None) for treatment, _, language, text in found]


def commands(block: Block) -> list[Command]:
    """The commands of a shell block, with the words of its treatment appended; KeyError for an unknown treatment."""
    appended, found = APPENDED[block.treatment], []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        environment = []
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            environment.append(tuple(words.pop(0).split("=", 1)))
        if words:
            found.append(Command(block.page, tuple(environment), (*words, *appended)))
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def code_spans(page: Path) -> list[str]:
    """Inline code of a page."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def links(page: Path) -> list[str]:
    """Targets of the relative links of a page, without their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target.partition("#")[0] for target in found if "://" not in target and not target.startswith("#")]
