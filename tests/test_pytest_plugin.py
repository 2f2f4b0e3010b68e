"""The pytest plugin: what it judges, how it fails, what it says at the end; when it is silent."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlint.errors import GradientHealthError, UnhealthyModelError
from gradlint.testing import assert_healthy, take_judged

MODELS = """
import pytest
import torch
from torch import nn

def healthy():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = healthy()

    def forward(self, x):
        return self.net(x).softmax(dim=1)

def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    return x, x[:, :3].argmax(dim=1)

loss = nn.functional.cross_entropy

def train(model, steps=20):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
"""


TESTS = """
from models import *
from gradlint.testing import assert_healthy

pytestmark = pytest.mark.gradlint(steps=5, seeds=1)

def test_healthy(gradlint):
    report = gradlint.check(healthy, batch(), loss)
    assert report.verdict == "healthy"
    assert gradlint.reports == [report]

def test_sick(gradlint):
    gradlint.check(Doubled, batch(), loss)

@pytest.mark.gradlint(ignore=["GL601"])
def test_ignored(gradlint):
    report = gradlint.check(Doubled, batch(), loss)
    assert "GL601" not in report.rules
    assert report.summary.steps == 5

@pytest.mark.gradlint(select="doubled-softmax")
def test_selected(gradlint):
    assert gradlint.check(healthy, batch(), loss).rules == ("GL601",)

@pytest.mark.gradlint(fail_on="never")
def test_never(gradlint):
    assert gradlint.check(Doubled, batch(), loss).verdict == "unhealthy"

def test_call(gradlint):
    report = gradlint.check(Doubled, batch(), loss, fail_on="never", steps=2)
    assert report.summary.steps == 2

@pytest.mark.gradlint(fail_one="error")
def test_typo(gradlint):
    pass

@pytest.mark.gradlint("error")
def test_positional(gradlint):
    pass

def test_settings(gradlint):
    assert "GL805" not in gradlint.check(healthy, batch(), loss).rules

def test_watched(gradlint):
    model = healthy()
    with gradlint.watch(model) as watched:
        train(model)
    assert watched.report.summary.steps == 20

def test_watched_sick(gradlint):
    model = Doubled()
    with gradlint.watch(model):
        train(model)
    raise RuntimeError("not reached")

def test_never_stopped(gradlint):
    model = Doubled()
    gradlint.watch(model).start()
    train(model)

def test_own_exception(gradlint):
    model = Doubled()
    with pytest.raises(ZeroDivisionError):
        with gradlint.watch(model):
            train(model)
            1 / 0

def test_asserted():
    with pytest.raises(AssertionError):
        assert_healthy(Doubled, batch(), loss, steps=5)
"""


@dataclass
class Session:
    """What a session of pytest gave."""

    text: str
    folder: Path

    @property
    def cases(self) -> dict[str, ET.Element]:
        return {
            case.attrib["name"]: case
            for case in ET.parse(self.folder / "out.xml").findall(".//testcase")
        }

    def outcome(self, name: str) -> str:
        """What JUnit says of a test: "passed", or the first line of what went wrong."""
        bad = [part for part in self.cases[name] if part.tag in ("failure", "error")]
        return f"{bad[0].tag}: {bad[0].attrib['message']}" if bad else "passed"

    @property
    def section(self) -> list[str]:
        """The lines of the summary's section."""
        found = re.search(r"^=+ gradlint =+\n(.*?)\n=", self.text, re.DOTALL | re.MULTILINE)
        return found[1].splitlines() if found else []


def pytest_in(folder: Path, *options: str) -> Session:
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--strict-markers", "--junit-xml=out.xml", "-W", "error", *options],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Session(done.stdout, folder)


def project(folder: Path) -> Path:
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n", encoding="utf-8")
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    (folder / "gradlint.yaml").write_text("ignore: [GL805]\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return pytest_in(project(tmp_path_factory.mktemp("project")))


def test_loading_the_plugin_does_not_load_torch() -> None:
    program = "import sys, gradlint.pytest_plugin; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_session_that_judges_nothing_loads_no_torch_and_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_light(request):\n"
        "    assert request.config.pluginmanager.hasplugin('gradlint')\n"
        "    assert 'torch' not in sys.modules\n"
    )

    session = pytest_in(tmp_path)

    assert session.outcome("test_light") == "passed"
    assert not session.section


@pytest.mark.parametrize(
    "name",
    ["test_healthy", "test_ignored", "test_selected", "test_never", "test_call", "test_settings",
     "test_watched", "test_own_exception", "test_asserted"],
)  # fmt: skip
def test_what_is_well_or_not_to_fail_passes(session: Session, name: str) -> None:
    assert session.outcome(name) == "passed"


def test_a_healthy_model_is_not_in_the_summary(session: Session) -> None:
    assert not [line for line in session.section if "test_healthy:" in line]


def test_a_sick_model_fails_with_the_concise_report_and_what_to_do(session: Session) -> None:
    said = session.outcome("test_sick")

    assert said.startswith("failure: gradlint.errors.UnhealthyModelError: unhealthy")
    assert "GL601 doubled-softmax" in said
    assert "help: GL601: " in said
    assert ">       gradlint.check(Doubled, batch(), loss)" in session.text
    assert "gradlint/session.py" not in session.text  # frames that are not the user's


def test_a_sick_loop_fails_where_it_ends(session: Session) -> None:
    assert "GL601 doubled-softmax" in session.outcome("test_watched_sick")


def test_a_loop_that_is_never_stopped_is_judged_when_the_test_ends(session: Session) -> None:
    assert session.outcome("test_never_stopped").startswith("error: failed on teardown")
    assert "GL601 doubled-softmax" in session.outcome("test_never_stopped")


def test_an_unknown_option_of_the_marker_is_an_error_that_says_what_was_meant(
    session: Session,
) -> None:
    assert "no option 'fail_one'; did you mean 'fail_on'?" in session.outcome("test_typo")
    assert "expected keywords such as fail_on=" in session.outcome("test_positional")


@pytest.mark.parametrize("name", ["test_sick", "test_never", "test_asserted", "test_watched_sick"])
def test_a_model_with_findings_has_one_line_in_the_summary(session: Session, name: str) -> None:
    lines = [line for line in session.section if f"::{name}: " in line]

    assert len(lines) == 1
    assert ": unhealthy: GL601 doubled-softmax Doubled" in lines[0]


def test_findings_are_properties_in_junit(session: Session) -> None:
    found = session.cases["test_never"].findall(".//property[@name='gradlint']")

    assert found[0].attrib["value"].startswith("GL601 doubled-softmax Doubled")
    assert not session.cases["test_healthy"].findall(".//property[@name='gradlint']")


def test_the_marker_is_listed(tmp_path: Path) -> None:
    assert "@pytest.mark.gradlint(fail_on=" in pytest_in(tmp_path, "--markers").text


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-n", "2"), ("-p", "no:xdist")], ids=["xdist", "without"])
def test_reports_travel_from_workers(
    session: Session, options: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("xdist")

    assert pytest_in(project(tmp_path), *options).section == session.section


# -- assert_healthy, which needs no pytest ------------------------------------------------


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(64, 8)
    return x, x[:, :3].argmax(dim=1)


def sick() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(dim=1))


def test_assert_healthy_returns_the_report_and_leaves_the_model_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    report = assert_healthy(model, data(), nn.functional.cross_entropy)

    assert report.verdict == "healthy"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_assert_healthy_raises_an_assertion_error_that_carries_the_report() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_healthy(sick, data(), nn.functional.cross_entropy, steps=5)

    assert take_judged() == [raised.value.report]  # and so this session does not tell of it
    assert isinstance(raised.value, UnhealthyModelError)
    assert isinstance(raised.value, GradientHealthError)
    assert raised.value.report.causes[0].code == "GL601"


def test_assert_healthy_ignores_what_it_is_told_to() -> None:
    loss = nn.functional.cross_entropy

    report = assert_healthy(sick, data(), loss, ignore=["GL601"], severity="error", steps=5)

    assert "GL601" not in report.rules


def test_assert_healthy_knows_no_such_severity() -> None:
    with pytest.raises(ValueError, match="expected a severity"):
        assert_healthy(sick, data(), severity="bad")


def test_assert_healthy_imports_without_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from gradlint.testing import assert_healthy\n"
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
