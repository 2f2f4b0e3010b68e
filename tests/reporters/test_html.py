"""The HTML report: what stands in it, that nothing of it is taken for markup, that it works."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import HealthCheck, given, settings

from gradlint.finding import Finding, Severity
from gradlint.report import Report, build_report, failed_report
from gradlint.reporters import format_of_file, formats, render
from gradlint.reporters.html.maps import decompositions
from gradlint.reporters.html.rows import rows_of
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.reporters.to_html import framed
from gradlint.rules import all_rules
from tests.reporters.pages import long_run
from tests.reporters.reading import Page
from tests.reporters.reports import reports


def page_of(*given: Report) -> Page:
    return Page(render(given, "html"))


def test_html_is_a_format_and_an_extension(tmp_path):
    assert "html" in formats()
    assert format_of_file("report.html") == "html"

    sick_report().save(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_verdict_and_causes_come_first_and_symptoms_are_folded_beneath():
    text = render([sick_report()], "html")

    places = [
        text.index(words)
        for words in (
            "</style>", "unhealthy</span>", "the gradient shrinks by 2.5e-09", "deep_sigmoid.py:12",
            "Replace Sigmoid by ReLU", "Verified cure", "nn.init.kaiming_normal_(layer.weight)",
            "Explains 2 more findings", "8 layers below 1e-03", "About GL301",
            "inputs have mean 127", "Layer by layer", "Step by step", ">Layers<",
            "About this report",
        )
    ]  # fmt: skip
    assert all(a < b for a, b in pairwise(places))


def test_a_cure_shows_before_and_after():
    assert "decay 2.5e-09 0.42" in page_of(sick_report()).text("th", "td")


def test_the_page_of_the_rule_stands_in_place():
    page = page_of(sick_report())

    for code in ("GL301", "GL303", "GL606", "GL805"):
        rule = next(rule for rule in all_rules() if rule.code == code)
        found = code in {f.code for f in sick_report().causes}
        assert (f"About {code} {rule.name}" in page.text("summary")) == found
    assert "Why is this bad?" in page.text("h4")


def test_explained_skipped_and_suppressed_are_told():
    text = page_of(sick_report()).text()

    assert "bn1.bias bn2.bias" in text
    assert "GL801 not observed: batch normalization" in text
    assert "GL201 head by config" in text
    assert "synthesized float32 32x784" in text


def test_every_drawing_has_a_title_and_a_description_with_numbers():
    page = page_of(sick_report(), long_run(20, 100))

    labels = [found["aria-label"] for found in page.all("svg")]
    assert {found["role"] for found in page.all("svg")} == {"img"}
    assert page.text("desc")
    for title in ("Gradient flow", "Activations", "Gradient to weight", "Gradient entries",
                  "Gain by operation", "Gain by module", "Loss", "Gradient norm",
                  "Learning rate", "Update to weight"):  # fmt: skip
        told = next(label for label in labels if label.startswith(f"{title}. "))
        assert re.search(r"\d", told)


def test_ids_are_unique_and_what_refers_to_one_finds_it():
    page = page_of(sick_report(), healthy_report(), sick_report())

    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "aria-controls"):
        assert set(page.values(name)) <= set(ids)
    anchors = [link["href"] for link in page.all("a")]
    assert {anchor.removeprefix("#") for anchor in anchors} <= set(ids)
    assert len(anchors) == 4  # three reports, and past them


def test_the_page_needs_no_network():
    text = render([sick_report(), long_run(5, 10)], "html")

    page = Page(text)
    assert not page.values("src")
    assert all(link.startswith(("#", "data:")) for link in page.values("href"))
    assert "@import" not in text
    assert not re.search(r"url\(|fetch\(|XMLHttpRequest", text)


EVIL = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)>{{ 7*7 }}</title></style>'


def test_names_and_messages_are_never_markup():
    finding = Finding(
        code="GL301", rule=EVIL, severity=Severity.ERROR, message=EVIL, help=EVIL,
        module=EVIL, modules=(EVIL, "b"), parameter=EVIL,
        evidence={EVIL: EVIL, "decades": {EVIL: 1}},
    )  # fmt: skip

    class Alone:
        def __init__(self, finding: Finding) -> None:
            self.finding, self.cause, self.symptoms = finding, None, ()

    trace = long_run(6, 20, name=lambda i: f"{EVIL}.{i}", report=False)
    report = build_report(
        [Alone(finding)], trace=trace, skipped={EVIL: EVIL}, notices=[EVIL],
        target={"path": EVIL, "assumed": {EVIL: EVIL}},
        error={"during": EVIL, "type": EVIL, "message": EVIL},
    )  # fmt: skip
    page = page_of(report)

    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert page.text("h3").startswith(EVIL)
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert page.all("script") == [{}]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(reports())
def test_any_report_becomes_a_whole_page(report: Report) -> None:
    text = render([report], "html")

    page = Page(text)
    assert [tag for tag, _ in page.elements].count("main") == 1
    assert len(page.all("script")) == 1
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text)


def test_a_target_that_failed_has_a_page_that_says_so():
    report = failed_report("no module named x", "ModuleNotFoundError", 3, {"path": "m.py"})
    text = page_of(report).text()

    assert "not-observed" in text
    assert "stopped: ModuleNotFoundError: no module named x" in text


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    page = Page(framed(sick_report()))

    assert [tag for tag, _ in page.elements] == ["iframe"]
    assert Page(page.all("iframe")[0]["srcdoc"]).text("h3").startswith("the gradient shrinks")


def test_two_hundred_layers_and_two_thousand_steps_stay_below_a_megabyte():
    assert len(render([long_run(200, 2000)], "html").encode()) < 1_000_000


def test_five_hundred_layers_stay_below_two_megabytes():
    assert len(render([long_run(500, 300)], "html").encode()) < 2_000_000


def test_the_table_has_a_row_for_every_weight_layer_and_marks_what_is_off():
    report = sick_report()
    page = page_of(report)

    rows = rows_of(report)
    assert len(rows) == 12
    assert rows[0].findings == ("GL301", "GL303")
    assert "gradient_ratio" in rows[0].marks
    assert "activation_std" not in rows[0].marks
    assert sum(found.get("scope") == "row" for found in page.all("th")) == len(rows) + 1


def test_a_nan_is_drawn_as_a_cross_and_told():
    page = page_of(long_run(4, 50, nan_from=20))

    assert any(found.get("class") == "cross" for found in page.all("path"))
    loss = next(f["aria-label"] for f in page.all("svg") if f["aria-label"].startswith("Loss."))
    assert "NaN from step 20 on" in loss
    assert "not finite" in page.text("span")


def test_the_layer_that_is_the_model_itself_has_a_name() -> None:
    report = sick_report()
    row = report.flow[0].model_copy(update={"path": ""})

    (figure, *_) = decompositions(report.model_copy(update={"flow": (row,)}))

    assert "from the loss to the model." in figure.caption
