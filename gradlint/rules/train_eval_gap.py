"""Functions that act as in training when the model is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Source, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_WHY = {
    "default": "`training` is not given, and True by default",
    "given": "`training` is given as True",
    "always": "it has no mode of its own",
    "hidden": "its module is no part of the model, and eval() does not reach it",
}


@dataclass(frozen=True)
class TrainEvalGap(Rule):
    """A model that drops out at random in evaluation mode, too.

    ## What it does
    Runs a copy of the trained model in evaluation mode and looks at the calls of
    `F.dropout` and its kin, `F.scaled_dot_product_attention` and `F.batch_norm`. Flags those
    that drop in a module that is in evaluation mode, if the outputs would be others without
    the dropping: `F.dropout` without `training`, whose default is True; attention with a
    `dropout_p` above 0, which has no mode of its own; a dropout module that is made in forward
    or kept in a plain list, which eval() does not reach. Where `training` is given as True it
    is a note, and so is `F.batch_norm` that goes on training its running statistics.

    ## Why is this bad?
    eval() does not turn it off: predictions are random, worse than the model could be, and
    differ from call to call. Validation measures a network with units missing.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.out(F.dropout(F.relu(self.hidden(x)), 0.5))

    model = Net()
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.out(F.dropout(F.relu(self.hidden(x)), 0.5, self.training))

    model = Net()
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Dropout in evaluation can be what is wanted: Monte Carlo dropout, a prenet of speech
    synthesis, the noise of a generator, noise that an autoencoder is to remove. It is a note
    where the call says `training=True`, where a class, a method or an attribute of the modules
    around it is called so (mc, bayesian, uncertainty, noise …), where one has a switch of its
    own that is on (is_train), and in installed packages. Silent are: modules that are in
    training mode though eval() was called (somebody keeps them there), functions outside of
    the model, in parts without gradients (teachers), on the very numbers that are the target,
    and below a forward that has an argument for it (train, deterministic, dropout …). Random
    numbers of another origin (sampling, noise) are not looked at. Watched loops are not
    judged: nothing runs a model there but the loop.

    ## References
    - PyTorch documentation, `torch.nn.functional.dropout`: "training – apply dropout if True.
      Default: True"; `scaled_dot_product_attention`: "This function always applies dropout
      according to the specified dropout_p argument"
    - Gal and Ghahramani (2016), "Dropout as a Bayesian approximation": where it is wanted
    - Isola et al. (2017), "Image-to-image translation with conditional adversarial networks",
      section 3.2.1: noise in the form of dropout, at training and test time
    - Shen et al. (2018), "Natural TTS synthesis by conditioning WaveNet on mel spectrogram
      predictions": dropout in the prenet at inference
    """

    code: ClassVar = "GL807"
    name: ClassVar = "train-eval-gap"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.PROGRESS
    help: ClassVar = (
        "Pass training=self.training to functional dropout and dropout_p only in training to "
        "attention, or use nn.Dropout made in __init__ and assigned to the module."
    )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the model was not run in evaluation mode."""
        if "evaluation-mode" not in trace.facts.probes:
            return "the model was not run in evaluation mode"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each line that acts as in training."""
        seen = trace.facts.probes.get("evaluation-mode")
        if seen is None:
            return
        change = float(seen["change"])
        for call in seen["calls"]:
            if call["why"] == "statistics":
                yield self._statistics(trace, call)
            elif change > 0:
                yield self._dropping(trace, call, change)

    def _dropping(self, trace: Trace, call: Mapping[str, Any], change: float) -> Finding:
        rate, why = float(call["rate"]), str(call["why"])
        meant = why == "given" or call["on_purpose"] or call["library"]
        return self._at(
            trace,
            call,
            f"{call['function']} drops {rate:.2g} of its entries in evaluation mode, too: "
            f"{_WHY[why]}; without such calls outputs change by {change:.2g} of their size",
            severity=Severity.NOTE if meant else Severity.WARNING,
            evidence={"change": change, "rate": rate, "function": call["function"], "why": why},
        )

    def _statistics(self, trace: Trace, call: Mapping[str, Any]) -> Finding:
        return self._at(
            trace,
            call,
            "F.batch_norm normalizes by the batch in evaluation mode, too, and its running "
            "statistics are changed by what is evaluated: `training` is given as True",
            severity=Severity.NOTE,
            help="Pass training=self.training to F.batch_norm, or no running statistics.",
            evidence={"function": call["function"], "why": call["why"]},
        )

    def _at(self, trace: Trace, call: Mapping[str, Any], message: str, **changes: Any) -> Finding:
        """Return a finding at the call's line, after all that came of the training."""
        source = Source(call["file"], int(call["line"])) if call["file"] else None
        changes |= {"source": source, "step": max(trace.steps, default=0)}
        return self.finding(call["module"], message, trace=trace, **changes)
