"""Reports made by hand, to see what a reporter draws: `python -m gradlint.reporters.sample`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradlint.finding import Cure, Explained, Finding, Severity, Source, Stage
from gradlint.report import Report, build_report
from gradlint.report_records import Suppressed
from gradlint.trace import (
    MODEL,
    Facts,
    Flow,
    ModuleFacts,
    Observation,
    ParameterFacts,
    Site,
    Trace,
)

DEPTH = 12


@dataclass(frozen=True)
class _Linked:
    finding: Finding
    cause: int | None = None
    symptoms: tuple[int, ...] = ()
    because: str = ""


def sick_report() -> Report:
    """Return a report on twelve sigmoid layers: one cause, two symptoms, a warning, notes."""
    vanishing = Finding(
        code="GL301",
        rule="vanishing-gradient",
        severity=Severity.ERROR,
        message="the gradient shrinks by 2.5e-09 from layers.22 to layers.0, limit 1e-03",
        help="Replace Sigmoid by ReLU or GELU with He initialization, or add residual connections.",
        module="layers.0",
        modules=("layers.0", "layers.2", "layers.4"),
        source=Source("deep_sigmoid.py", 12),
        step=0,
        stage=Stage.BACKWARD,
        evidence={
            "decay": 2.5e-9,
            "limit": 1e-3,
            "per_layer": 0.11,
            "decades": {"Sigmoid": -6.1, "weights": -2.5, "structural": -1.1},
        },
        cure=Cure(
            "Sigmoid replaced by ReLU, weights by He initialization",
            "nn.init.kaiming_normal_(layer.weight)",
            verified=True,
            before={"decay": 2.5e-9},
            after={"decay": 0.42},
        ),
    )
    symptoms = [
        _found("GL303", "gradient-ratio", Severity.WARNING, "8 layers below 1e-03", "layers.0"),
        _found("GL609", "loss-not-decreasing", Severity.WARNING, "2.3 to 2.3 in 40 steps", None),
    ]
    scale = Finding(
        code="GL606",
        rule="unnormalized-input",
        severity=Severity.WARNING,
        message="inputs have mean 127 and std 73, expected about 0 and 1",
        help="Divide by 255, or subtract the mean and divide by the std.",
        module="",
        modules=("",),
        evidence={"mean": 127.4, "std": 73.2},
    )
    bias = _found("GL805", "redundant-bias", Severity.NOTE, "bias of conv1 is not needed", "conv1")
    because = "layers without gradient do not learn"
    linked = [
        _Linked(vanishing, symptoms=(2, 3)),
        *(_Linked(found, cause=1, because=because) for found in symptoms),
        _Linked(scale),
        _Linked(bias),
    ]
    return build_report(
        linked,
        trace=_trace(signal=0.9, decay=0.17, loss=1.0),
        explained=[_explained("bn1.bias"), _explained("bn2.bias")],
        skipped={"GL801": "not observed: batch normalization", "GL802": "no recurrence"},
        suppressed=[Suppressed(code="GL201", module="head", by="config")],
        target=_target("deep_sigmoid.py"),
        rules_run=36,
    )


def healthy_report() -> Report:
    """Return a report with nothing to say."""
    return build_report(
        [],
        trace=_trace(signal=0.99, decay=0.97, loss=0.96),
        skipped={"GL801": "not observed: batch normalization"},
        target=_target("healthy.py"),
        rules_run=36,
    )


def _target(path: str) -> dict[str, Any]:
    return {
        "path": path,
        "object": "build_model",
        "parameters": 98_314,
        "device": "cpu",
        "assumed": {"batch": "synthesized float32 32x784", "loss": "cross_entropy"},
    }


def _found(code: str, rule: str, severity: Severity, message: str, module: str | None) -> Finding:
    modules = () if module is None else (module,)
    return Finding(
        code=code, rule=rule, severity=severity, message=message, module=module, modules=modules
    )


def _explained(place: str) -> Explained:
    because = "a bias before BatchNorm has a gradient that cancels exactly"
    return Explained("GL301", place, because, "bias-before-normalization")


def _trace(*, signal: float, decay: float, loss: float) -> Trace:
    """A chain of linear and sigmoid layers with geometric profiles."""
    flows = tuple(
        Flow(
            step=0,
            site=Site(f"layers.{2 * i}", "Linear", 2 * i, f"layers.{2 * i}"),
            decades={"weights": -0.2 * (DEPTH - i)},
            norm=decay ** (DEPTH - i),
        )
        for i in range(DEPTH)
    )
    linears = [f"layers.{2 * i}" for i in range(DEPTH)]
    return Trace(
        [*_measured(signal, decay), *_losses(loss)],
        modules={
            f"layers.{i}": ModuleFacts(f"layers.{i}", ("Linear", "Sigmoid")[i % 2], i, 1)
            for i in range(2 * DEPTH)
        },
        parameters={
            f"{path}.weight": ParameterFacts(f"{path}.weight", (96, 96), module=path)
            for path in linears
        },
        facts=Facts(flows=flows),
    )


def _measured(signal: float, decay: float) -> Iterator[Observation]:
    for i in range(DEPTH):
        path, activation = f"layers.{2 * i}", f"layers.{2 * i + 1}"
        weight = Site(f"{path}.weight", "parameter", 2 * i, path)
        linear, sigmoid = (
            Site(path, "Linear", 2 * i, path),
            Site(activation, "Sigmoid", 2 * i + 1, activation),
        )
        for site in (linear, sigmoid):
            yield Observation("activation_std", site, 0, signal ** (i + 1))
            yield Observation("activation_rms", site, 0, signal ** (i + 1))
        yield Observation("pre_activation_grad_norm", linear, 0, decay ** (DEPTH - i))
        yield Observation("saturated_share", sigmoid, 0, 0.0)
        yield Observation("dead_fraction", sigmoid, 0, 0.03 * i)
        for step in (0, 40):
            yield Observation("gradient_ratio", weight, step, 0.05 * decay ** (DEPTH - 1 - i))


def _losses(factor: float) -> Iterator[Observation]:
    for step in range(41):
        yield Observation("loss", MODEL, step, 2.3 * factor**step)
        yield Observation("total_gradient_norm", MODEL, step, 0.8)


if __name__ == "__main__":
    import sys

    from gradlint.reporters import Options, render

    options = Options(color=sys.stdout.isatty(), verbose="-v" in sys.argv)
    for name in sys.argv[1:] or ["full"]:
        if not name.startswith("-"):
            sys.stdout.write(render([sick_report(), healthy_report()], name, options))
