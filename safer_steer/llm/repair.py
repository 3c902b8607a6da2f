"""Two harmless habits of models put right: strings in single quotes, and a comma before a closing bracket.

Nothing else is repaired. Every token must be one that JSON knows, so that no number is ever changed, completed or cut
out of a longer word.
"""

import re

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<double>"(?:[^"\\]|\\.)*")
    |(?P<single>'(?:[^'\\]|\\.)*')
    |(?P<mark>[{}\[\]:,])
    |(?P<word>(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?=[\s,}\]]))""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\.|\"", re.DOTALL)


def plain_json(text: str) -> str | None:
    """The text with its single-quoted strings in double quotes and without trailing commas; None where a token is no
    JSON.
    """
    tokens: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            return None
        at = found.end()
        kind, token = found.lastgroup, found[0]
        if kind == "single":
            token = f'"{_ESCAPED.sub(_in_double_quotes, token[1:-1])}"'
        if token in "}]" and tokens and tokens[-1] == ",":
            tokens.pop()
        if kind != "space":
            tokens.append(token)
    return " ".join(tokens)


def _in_double_quotes(found: re.Match[str]) -> str:
    """An escape, or a double quote, of a single-quoted string as JSON writes it."""
    return {'"': '\\"', "\\'": "'"}.get(found[0], found[0])
