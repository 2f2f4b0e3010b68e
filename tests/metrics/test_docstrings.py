"""The examples in the metrics' docstrings say what the metrics do."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import gradlint.metrics
from gradlint.metrics import Metric, all_metrics

MODULES = [
    importlib.import_module(f"gradlint.metrics.{found.name}")
    for found in pkgutil.iter_modules(gradlint.metrics.__path__)
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_documented_examples_hold(module: object) -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    names = {**vars(module), "torch": torch}
    documented = [value.doc for value in vars(module).values() if isinstance(value, Metric)]
    parser = doctest.DocTestParser()
    examples = [t for t in finder.find(module, globs=names) if t.examples]
    for text in documented:  # a metric is no function: its docstring is in `doc`
        examples.append(parser.get_doctest(text, names, str(module), None, None))

    for example in examples:
        result = runner.run(example, clear_globs=False)
        assert result.failed == 0, example.docstring


def test_there_are_documented_examples() -> None:
    assert sum(">>> " in metric.doc for metric in all_metrics().values()) >= 3
