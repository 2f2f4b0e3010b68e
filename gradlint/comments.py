"""Comments in the user's code: ``# gradlint: ignore[GL201] reason``, on the line of a module."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gradlint.diagnosis.exemptions import Exemption
from gradlint.diagnosis.judge import with_source
from gradlint.errors import ConfigError
from gradlint.finding import Finding, Source
from gradlint.rules import all_rules
from gradlint.selection import COMMENT_EXEMPTION, resolve
from gradlint.trace import Trace

_COMMENT = re.compile(r"#\s*gradlint:\s*ignore(?![\w-])\s*(?:\[([^\]]*)\])?([^#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ignore:
    """One comment: where it is, the rules it silences, and why.

    `mistakes` says what about it cannot be understood.
    """

    file: str
    line: int
    selectors: tuple[str, ...]
    reason: str = ""
    mistakes: tuple[str, ...] = ()

    @property
    def codes(self) -> frozenset[str]:
        """Codes of the rules it names."""
        return frozenset(code for word in self.selectors for code in resolve(word))

    @property
    def because(self) -> str:
        """What a report says of a finding that it silences."""
        return f"ignored at {self.file}:{self.line}" + (f": {self.reason}" if self.reason else "")


def _proof(trace: Trace, found: Finding) -> str | None:
    source = with_source(trace, found).source
    shown = () if source is None else ignores_at(source)
    for ignore in (*shown, *_over(trace, found.module or "")):
        if found.code in ignore.codes:
            return ignore.because
    return None


COMMENTS = Exemption(COMMENT_EXEMPTION, frozenset(rule.code for rule in all_rules()), _proof)
"""Findings whose line, or whose module's or owner's line, holds a comment that names the rule."""


def comment_notices(
    trace: Trace, silenced: Collection[tuple[str, str]], ran: Collection[str]
) -> Iterator[str]:
    """Yield a sentence for each comment that ignores nothing, or cannot be understood.

    Args:
        trace: Its modules' lines are those looked at.
        silenced: Code and reason of everything that was silenced.
        ran: Codes of the rules that ran; only of these a comment can be useless.
    """
    lines = [
        source
        for facts in trace.modules.values()
        for source in (facts.source, *facts.functions.values())
        if source is not None
    ]
    for ignore in dict.fromkeys(i for source in dict.fromkeys(lines) for i in ignores_at(source)):
        yield from (f"{ignore.file}:{ignore.line}: {mistake}" for mistake in ignore.mistakes)
        used = {code for code, because in silenced if because == ignore.because}
        for word in ignore.selectors:
            codes = resolve(word)
            if codes & set(ran) and not codes & used:
                yield f"{ignore.file}:{ignore.line}: 'ignore[{word}]' ignores nothing: take it out"


def _over(trace: Trace, path: str) -> Iterator[Ignore]:
    """Yield the comments on the lines of a module and of its owners."""
    while True:
        yield from _at(trace, path)
        if not path:
            return
        path = path.rpartition(".")[0]


def _at(trace: Trace, path: str) -> tuple[Ignore, ...]:
    facts = trace.modules.get(path)
    return () if facts is None or facts.source is None else ignores_at(facts.source)


def ignores_at(source: Source) -> tuple[Ignore, ...]:
    """Return the comments that speak of what is built at `source`."""
    try:
        changed = Path(source.file).stat().st_mtime_ns
    except OSError:  # a trace may be read where the code is not
        return ()
    found, starts = _read(source.file, changed)
    return tuple(ignore for ignore in found if source.line in starts[ignore.line])


@lru_cache(maxsize=64)
def _read(file: str, changed: int) -> tuple[tuple[Ignore, ...], dict[int, frozenset[int]]]:
    """Read a file's comments, and the lines that each speaks of."""
    try:
        data = Path(file).read_bytes()
        if b"gradlint" not in data:
            return (), {}
        tree = ast.parse(data)
        tokens = list(tokenize.tokenize(io.BytesIO(data).readline))
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return (), {}
    found = []
    for token in tokens:
        match = _COMMENT.search(token.string) if token.type == tokenize.COMMENT else None
        if match:
            found.append(_ignore(file, token.start[0], match[1], match[2]))
    return tuple(found), {ignore.line: _spoken_of(tree, ignore.line) for ignore in found}


def _ignore(file: str, line: int, words: str | None, rest: str) -> Ignore:
    if words is None or not words.strip():
        return Ignore(file, line, (), mistakes=("expected '# gradlint: ignore[RULE] reason'",))
    selectors, mistakes = [], []
    for word in (part.strip() for part in words.split(",")):
        try:
            resolve(word)
            selectors.append(word)
        except ConfigError as error:
            mistakes.append(str(error))
    reason = " ".join(rest.split()).strip(" -–—:")
    return Ignore(file, line, tuple(selectors), reason, tuple(mistakes))


def _spoken_of(tree: ast.Module, line: int) -> frozenset[int]:
    """Lines at which begins what a comment on `line` speaks of.

    That is the line itself or, where nothing but the end of a longer expression is on it, the
    first line of that.
    """
    ends = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.Call)):
            if node.lineno == line:
                return frozenset((line,))
            if node.end_lineno == line and not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                ends.add(node.lineno)
    return frozenset(ends | {line})
