"""Comments in the user's code silence a rule at the module whose line they stand on."""

from __future__ import annotations

import textwrap

import pytest

from gradlint.comments import COMMENTS, ignores_at
from gradlint.config import Config, module_ignores, take_suppressed
from gradlint.diagnosis.judge import judge
from gradlint.finding import Source
from gradlint.report import build_report
from gradlint.rules import find_rule
from gradlint.testing import observe, trace_of
from gradlint.trace import ModuleFacts

PROGRAM = """\
class Net(nn.Module):{root}
    def __init__(self):
        super().__init__()
        self.block = Block(){block}
        self.body = nn.Sequential(
            nn.Linear(4, 4),
            nn.Linear(
                4,
                4,
            ),{wide}
        ){body}
"""
LINES = {"": 1, "block": 4, "block.fc": 20, "body": 5, "body.0": 6, "body.1": 7}


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**comments: str) -> dict[str, Source]:
        filled = dict.fromkeys(("root", "block", "wide", "body"), "") | {
            key: f"  # {text}" for key, text in comments.items()
        }
        (tmp_path / "m.py").write_text(PROGRAM.format(**filled))
        (tmp_path / "other.py").write_text("\n" * 20)
        return {
            path: Source("other.py" if path == "block.fc" else "m.py", line)
            for path, line in LINES.items()
        }

    return write


def covered(sources: dict[str, Source], code: str = "GL804") -> set[str]:
    rule = find_rule(code)
    assert rule is not None
    trace = trace_of(modules=[ModuleFacts(path, "X", source=at) for path, at in sources.items()])
    return {
        path for path in sources if COMMENTS.covers(trace, rule().finding(path, "x")) is not None
    }


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("root", set(LINES)),
        ("block", {"block", "block.fc"}),
        ("wide", {"body.1"}),
        ("body", {"body", "body.0", "body.1"}),
    ],
)
def test_a_comment_covers_what_is_built_on_its_line_and_its_parts(program, place, expected):
    assert covered(program(**{place: "gradlint: ignore[GL804] because"})) == expected


@pytest.mark.parametrize("words", ["GL804", "dropout-rate", "GL8", "GL201, GL804", "gl804"])
def test_rules_are_named_as_in_the_settings(program, words):
    sources = program(block=f"noqa: E501  # gradlint: ignore[{words}] it is meant # more")

    assert "block" in covered(sources)
    assert "block" not in covered(sources, "GL301")
    assert ignores_at(sources["block"])[0].reason == "it is meant"


def test_a_comment_covers_a_function_that_is_called_on_its_line(tmp_path):
    file = tmp_path / "m.py"
    file.write_text("y = 1\nx = F.dropout(x, 0.9)  # gradlint: ignore[GL804]\n")
    facts = ModuleFacts("", "Net", functions={"dropout": Source(str(file), 2)})
    rule = find_rule("GL804")
    assert rule is not None
    found = rule().finding("", "x", evidence={"kind": "dropout"})

    assert COMMENTS.covers(trace_of(modules=[facts]), found) is not None
    assert COMMENTS.covers(trace_of(modules=[facts]), found.but(evidence={})) is None


def test_text_in_a_string_is_no_comment(tmp_path):
    file = tmp_path / "m.py"
    file.write_text(textwrap.dedent('x = "# gradlint: ignore[GL804]"\n'))

    assert ignores_at(Source(str(file), 1)) == ()


@pytest.mark.parametrize("data", [b"def :(  # gradlint: ignore[GL804]", b"\xff\xfe gradlint", b""])
def test_a_file_that_cannot_be_read_ignores_nothing(tmp_path, data):
    file = tmp_path / "m.py"
    file.write_bytes(data)

    assert ignores_at(Source(str(file), 1)) == ()
    assert ignores_at(Source(str(tmp_path / "none.py"), 1)) == ()


def report_on(sources: dict[str, Source], rate: float):
    """Report of GL804 alone, on dropout of `rate` in `block`."""
    trace = trace_of(
        observe("loss", "", [1.0], kind="model"),
        modules=[
            ModuleFacts(
                path, "Dropout" if path == "block" else "X", calls=1, source=at,
                options={"p": rate} if path == "block" else {},
            )
            for path, at in sources.items()
        ],
    )  # fmt: skip
    rule = find_rule("GL804")
    assert rule is not None
    judgement = judge(trace, [rule()], module_ignores(Config()))
    judgement, suppressed = take_suppressed(judgement)
    assert judgement.findings == ()
    return build_report([], trace=trace, suppressed=suppressed, rules_run=judgement.rules_run)


def test_what_a_comment_silences_is_in_the_report_with_its_reason(program):
    report = report_on(program(block="gradlint: ignore[GL804] it is meant"), rate=0.95)

    (entry,) = report.suppressed
    assert (entry.code, entry.module, entry.by) == ("GL804", "block", "comment")
    assert entry.reason == "ignored at m.py:4: it is meant"
    assert (entry.source.file, entry.source.line) == ("m.py", 4)
    assert report.notices == ()


def test_a_comment_that_ignores_nothing_is_told(program):
    report = report_on(program(block="gradlint: ignore[GL804, GL301]"), rate=0.1)

    assert report.suppressed == ()
    # GL301 did not run: whether it is needed is not known
    assert report.notices == ("m.py:4: 'ignore[GL804]' ignores nothing: take it out",)


@pytest.mark.parametrize(
    ("comment", "notice"),
    [
        ("gradlint: ignore", "expected '# gradlint: ignore[RULE] reason'"),
        ("gradlint: ignore[] why", "expected '# gradlint: ignore[RULE] reason'"),
        ("gradlint: ignore[dead-unit]", "no rule 'dead-unit'; did you mean 'dead-units'?"),
        ("gradlint: ignore[GL999]", "no rule 'GL999'; 'gradlint rules' lists all"),
    ],
)
def test_a_comment_that_cannot_be_understood_is_told_and_silences_nothing(program, comment, notice):
    sources = program(block=comment)

    assert covered(sources) == set()
    assert report_on(sources, rate=0.1).notices == (f"m.py:4: {notice}",)
