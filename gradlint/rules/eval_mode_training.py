"""Training steps with BatchNorm or Dropout in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, Trace

_MODES = ("BatchNorm", "SyncBatchNorm", "Dropout", "AlphaDropout", "FeatureAlphaDropout")
"""Beginnings of the class names whose forward differs between training and evaluation."""

_DROPPING = ("LSTM", "GRU", "RNN", "MultiheadAttention")
"""Classes that drop out between their layers, or of their attention, at a rate of their own."""


@dataclass(frozen=True)
class EvalModeTraining(Rule):
    """A model that is trained as if it were evaluated.

    ## What it does
    Flags BatchNorm and Dropout modules, and modules whose forward gives `self.training` to
    `F.dropout` or `F.batch_norm`, that run in evaluation mode in a part that gets gradients and
    updates. `check` puts the model into training mode before it runs: then the
    forward or the training step called `eval()`. A watched loop is taken as it is.

    ## Why is this bad?
    In evaluation mode BatchNorm uses running statistics, which then never see the data: at
    the start it is the identity. Dropout does nothing. The training runs without the
    normalization and the regularization that the model was designed with.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))

    def training_step(model, batch):
        model.eval()
        return F.cross_entropy(model(batch[0]), batch[1])
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))

    def training_step(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    ```

    ## When it is wrong
    Fine-tuning with frozen statistics is usual: silent where weights were loaded, where the
    BatchNorm's own parameters are frozen, and in parts without gradients (teachers, frozen
    backbones) or in no optimizer (networks that judge others). A dropout of rate 0 does not
    count.

    ## References
    - [2] pitfalls: eval mode while training
    - PyTorch notes, "Autograd mechanics", section "Evaluation mode"
    """

    code: ClassVar = "GL710"
    name: ClassVar = "eval-mode-training"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = "Call model.train() before the training steps, and eval() around evaluation."

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why evaluation mode is no fault here, or None."""
        if trace.facts.pretrained:
            return "weights were loaded: statistics are often frozen then"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each module that runs in evaluation mode."""
        alive = {p.module for p in trace.parameters.values() if _learns(trace, p.path)}
        for module in trace.modules.values():
            if not _in_eval(module) or not _in_live_part(trace, module, alive):
                continue
            yield self.finding(
                module.path,
                f"{module.kind} runs in evaluation mode while the model is trained",
                trace=trace,
                evidence={"kind": module.kind},
            )


def _in_eval(module: ModuleFacts) -> bool:
    if module.training or module.calls == 0:
        return False
    options = module.options
    if module.kind.startswith(_MODES):
        return bool(options.get("p", 0.5) != 0)
    if module.kind in _DROPPING:
        return bool(options.get("dropout", 0.0) != 0)
    rates = [options[name] for name in ("dropout", "p") if name in options]
    return bool(options.get("reads_mode")) and 0 not in rates


def _learns(trace: Trace, path: str) -> bool:
    parameter = trace.parameters[path]
    trained = parameter.requires_grad and parameter.in_optimizer is not False
    return trained and parameter.gradient == "present"


def _in_live_part(trace: Trace, module: ModuleFacts, alive: set[str]) -> bool:
    """Whether the module, or the module around it, is trained."""
    if module.parameters:
        return any(_learns(trace, path) for path in module.parameters)
    parent = module.path.rpartition(".")[0]
    return any(not parent or home == parent or home.startswith(f"{parent}.") for home in alive)
