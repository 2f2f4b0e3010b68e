"""Rules chosen, silenced and re-weighted as the settings say; names resolved, with suggestions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from gradlint.diagnosis.exemptions import Exemption
from gradlint.diagnosis.judge import Judgement
from gradlint.errors import ConfigError
from gradlint.finding import Explained, Finding, Severity
from gradlint.rules import Rule, all_rules
from gradlint.trace import Trace

if TYPE_CHECKING:
    from gradlint.config import Config
    from gradlint.report_records import Suppressed

CONFIG_EXEMPTION = "per-module-ignores"
COMMENT_EXEMPTION = "ignore-comment"
_SILENCERS = {CONFIG_EXEMPTION: "config", COMMENT_EXEMPTION: "comment"}


def no_such(kind: str, wanted: str, known: Iterable[str]) -> str:
    """Return the sentence that says there is no such thing, and what was meant."""
    names = list(known)
    folded = {name.lower().replace("_", "-"): name for name in names}
    close = difflib.get_close_matches(wanted.lower().replace("_", "-"), folded, n=1)
    if close:
        return f"no {kind} {wanted!r}; did you mean {folded[close[0]]!r}?"
    if 0 < len(names) <= 16:
        return f"no {kind} {wanted!r}; choose from {', '.join(names)}"
    return f"no {kind} {wanted!r}"


def resolve(selector: str) -> frozenset[str]:
    """Return the codes of the rules that `selector` names.

    Raises:
        ConfigError: If it names none; says what was meant.
    """
    wanted = selector.strip()
    if wanted.upper() == "ALL":
        return frozenset(rule.code for rule in all_rules())
    exact = {rule.code for rule in all_rules() if rule.name == wanted.lower()}
    if exact:
        return frozenset(exact)
    if re.fullmatch(r"GL\d{0,3}", wanted, re.IGNORECASE):
        codes = frozenset(r.code for r in all_rules() if r.code.startswith(wanted.upper()))
        if codes:
            return codes
    raise ConfigError(no_such_rule(selector))


def no_such_rule(wanted: str) -> str:
    """Return the sentence that says there is no rule `wanted`, and what was meant."""
    names = [] if re.search(r"\d", wanted) else [rule.name for rule in all_rules()]
    sentence = no_such("rule", wanted, names)
    return sentence if sentence.endswith("?") else f"no rule {wanted!r}; 'gradlint rules' lists all"


def _strength(selector: str) -> int:
    """How particular a selector is: everything, a group, one rule."""
    wanted = selector.strip().upper()
    if wanted == "ALL":
        return 0
    return len(wanted) if re.fullmatch(r"GL\d{0,3}", wanted) else len("GL000")


def selected_codes(config: Config) -> frozenset[str]:
    """Return the codes of the rules that run under `config`."""
    strengths: dict[str, tuple[int, bool]] = {}
    chosen = ("ALL",) if config.select is None else config.select
    for selectors, runs in (((*chosen, *config.extend_select), True), (config.ignore, False)):
        for selector in selectors:
            for code in resolve(selector):
                strength = _strength(selector)
                if strength >= strengths.get(code, (-1, False))[0]:
                    strengths[code] = (strength, runs)
    return frozenset(code for code, (_, runs) in strengths.items() if runs)


def active_rules(config: Config) -> list[Rule]:
    """Return an instance, with its options, of each rule that runs under `config`.

    Raises:
        ConfigError: If a rule or an option is unknown, or an option has a wrong type.
    """
    options: dict[str, dict[str, Any]] = {}
    for selector, values in config.rules.items():
        rule = _one_rule(selector)
        options.setdefault(rule.code, {}).update(_checked_options(rule, values))
    for selector in (*config.severity, *(s for v in config.per_module_ignores.values() for s in v)):
        resolve(selector)
    codes = selected_codes(config)
    return [rule(**options.get(rule.code, {})) for rule in all_rules() if rule.code in codes]


def _one_rule(selector: str) -> type[Rule]:
    codes = resolve(selector)
    if len(codes) > 1:
        raise ConfigError(f"expected one rule, by its name or code, got {selector!r}")
    return next(rule for rule in all_rules() if rule.code in codes)


def _checked_options(rule: type[Rule], values: Mapping[str, Any]) -> dict[str, Any]:
    defaults = rule()
    known = {option.name: getattr(defaults, option.name) for option in fields(rule)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            if not known:
                raise ConfigError(f"rule {rule.name!r} has no options, got {key!r}")
            raise ConfigError(no_such(f"option of rule {rule.name!r}", key, known))
        checked[name] = _checked_value(rule, name, value, known[name])
    return checked


def _checked_value(rule: type[Rule], name: str, value: Any, default: Any) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if default is not None and type(value) is not wanted:
        article = "a" if wanted is not int else "an"
        kind = {"tuple": "list", "str": "string"}.get(wanted.__name__, wanted.__name__)
        raise ConfigError(
            f"expected {article} {kind} for option {name!r} of rule {rule.name!r}, got {value!r}"
        )
    return value


def apply_severity(findings: Iterable[Finding], config: Config) -> tuple[Finding, ...]:
    """Return `findings` with the severities that the settings give their rules."""
    levels: dict[str, tuple[int, Severity]] = {}
    for selector, word in config.severity.items():
        for code in resolve(selector):
            strength = _strength(selector)
            if strength >= levels.get(code, (-1, Severity.NOTE))[0]:
                levels[code] = (strength, Severity.parse(word))
    return tuple(
        found.but(severity=levels[found.code][1]) if found.code in levels else found
        for found in findings
    )


def module_ignores(config: Config) -> tuple[Exemption, ...]:
    """Return `per-module-ignores`, and comments in the code, as exemptions.

    The judge applies them place by place; what they cover `take_suppressed` tells apart again.
    """
    from gradlint.comments import COMMENTS

    patterns = (
        _ignore(pattern, frozenset(code for s in selectors for code in resolve(s)))
        for pattern, selectors in config.per_module_ignores.items()
    )
    return (*patterns, COMMENTS)


def _ignore(pattern: str, codes: frozenset[str]) -> Exemption:
    def proof(_: Trace, found: Finding) -> str | None:
        places = [place for place in (found.module, found.parameter) if place is not None]
        matches = any(fnmatchcase(place, pattern) for place in places)
        return f"ignored in {pattern!r}" if matches else None

    return Exemption(CONFIG_EXEMPTION, codes, proof)


def take_suppressed(judgement: Judgement) -> tuple[Judgement, tuple[Suppressed, ...]]:
    """Return `judgement` without what the settings silence, and that."""
    from gradlint.report_records import SourceRecord, Suppressed

    def silenced(entry: Explained) -> bool:
        return entry.name in _SILENCERS

    kept = tuple(e for e in judgement.explained if not silenced(e))
    taken = tuple(
        Suppressed(
            code=e.code,
            module=e.module,
            by=_SILENCERS[e.name],
            reason=e.because,
            source=None if e.source is None else SourceRecord.of(e.source),
        )
        for e in judgement.explained
        if silenced(e)
    )
    return replace(judgement, explained=kept), taken
