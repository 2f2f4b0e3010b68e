"""Units of a layer that start equal and stay equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import STRUCTURAL, WEIGHTED, Operation
from gradlint.rules._chains import initial_value, weight_of, why_not_initial
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class SymmetricUnits(Rule):
    """Units with the same weights and the same gradients, which are one unit for ever.

    ## What it does
    Flags a weight layer in which more than `max_share` of the units have, bit for bit, the
    weights and the gradient of another unit: at step 0 and, if training was watched, at its
    last step. A weight without any gradient is judged after training only. Output layers are
    left out: the units of classes that no batch holds do get equal gradients. Also flags
    the weights of a model in which every weight layer starts at a constant, even where
    random biases tell the units apart; and two tables or layers that multiply each other, both
    zero and without any gradient at step 0 and at `min_steps` training steps or more: each
    one's gradient is the other.

    ## Why is this bad?
    Equal units get equal updates, so they stay equal: a layer of 100 such units computes
    what one unit computes.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
    batch = (torch.randn(64, 8), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    for layer in (model[0], model[2]):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    batch = (torch.randn(64, 8), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Zero-initialized heads, last layers of residual branches, gates and LoRA's B start equal
    and have different gradients, at step 0 or as soon as what follows them has moved: they
    are silent. Networks widened by copying units start symmetric on purpose; dropout or
    noise breaks that symmetry. Embedding tables (but for two zero ones that multiply each
    other) and parameters that no linear layer, convolution or recurrent layer multiplies by
    are not judged.

    ## References
    - [2] section 2.4: zeros make all units learn the same; [4] problem 7.15
    - Goodfellow, Bengio & Courville (2016), "Deep Learning", section 8.4
    - Half of the units as the limit is our choice: random weights give exactly 0, a constant
      gives 1, and nothing in between has been seen.
    - Constants with torch's random biases (`tests/calibration/constant_weights.py`; digits,
      3 layers of ReLU, 400 steps): a loss of 1.5 to 3.6 with Adam and 2.3, chance, with SGD,
      where random weights reach 0.03 and 0.12; a constant first layer alone does no harm.
    """

    code: ClassVar = "GL102"
    name: ClassVar = "symmetric-units"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("symmetric_share", "gradient_norm", "weight_abs_max")
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Draw the weights at random (nn.init.kaiming_normal_, nn.init.xavier_normal_); "
        "only biases start at zero."
    )

    max_share: float = 0.5
    min_steps: int = 3

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each weight whose units are copies of each other."""
        found = list(self._copies(trace))
        yield from found or self._constants(trace)
        yield from self._factors(trace, {f.parameter or "" for f in found})

    def _factors(self, trace: Trace, told: set[str]) -> Iterator[Finding]:
        """Yield a finding for each product of two factors that are zero and stay so."""
        for op in trace.graph.of_kind("mul", "matmul"):
            if len(set(op.inputs)) != 2:
                continue
            first, second = (self._stuck(trace, side) for side in trace.graph.inputs_of(op))
            if not first or not second or set(first) & set(second) or told & {*first, *second}:
                continue
            told |= {*first, *second}
            last = max(trace.of("gradient_norm").at(first[0]).steps)
            facts = trace.parameters[first[0]]
            yield self.finding(
                facts.module,
                f"{first[0]} and {second[0]} multiply each other and are both zero: each one's "
                f"gradient is the other, zero from step 0 to step {last}",
                trace=trace,
                parameter=first[0],
                step=0,
                help="Draw one of the two at random (nn.init.normal_ with a small std).",
                evidence={"share": 1.0, "limit": self.max_share, "constant": True},
            )

    def _stuck(self, trace: Trace, op: Operation) -> list[str]:
        """Return the parameters that make `op` zero: all zero, and never with a gradient."""
        if op.kind in STRUCTURAL - {"embedding"}:
            sides = [self._stuck(trace, before) for before in trace.graph.inputs_of(op)]
            return [path for side in sides for path in side] if all(sides) else []
        if op.kind not in WEIGHTED | {"embedding"} or op.kind == "rnn":
            return []
        return list(op.parameters) if all(self._stands(trace, p) for p in op.parameters) else []

    def _stands(self, trace: Trace, path: str) -> bool:
        facts = trace.parameters.get(path)
        norms = trace.of("gradient_norm").at(path)
        if facts is None or not facts.requires_grad or facts.in_optimizer is False:
            return False
        if initial_value(trace, "weight_abs_max", path) != 0 or any(norms.values):
            return False
        return len(norms.initial) > 0 and len(norms.training) >= self.min_steps

    def _constants(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each weight of a model whose weights are all constants."""
        weights = {path: op for op in trace.weight_layers() if (path := weight_of(trace, op))}
        facts = [trace.parameters[path] for path in weights]
        several = [known for known in facts if known.shape[0] >= 2]
        if len(weights) < 2 or not several or len(weights) < len(_layers(trace)):
            return
        if any(not known.requires_grad or known.numel < 2 for known in facts):
            return
        values = {path: _constant(trace, path) for path in weights}
        if None in values.values():
            return
        for path, op in weights.items():
            yield self.finding(
                op.module,
                f"every weight starts at {values[path]:.2g}, and at a constant in all "
                f"{len(weights)} weight layers: nothing but biases tells units apart",
                trace=trace,
                parameter=path,
                step=0,
                evidence={"share": 1.0, "limit": self.max_share, "constant": True},
            )

    def _copies(self, trace: Trace) -> Iterator[Finding]:
        symmetric = trace.of("symmetric_share")
        for site in symmetric.sites:
            share = initial_value(trace, "symmetric_share", site.path)
            if share is None or not share > self.max_share:
                continue
            readers = trace.graph.reading(site.path)
            if readers and not any(_is_hidden(trace, op) for op in readers):
                continue
            later = symmetric.at(site).training
            if later:
                share = min(share, later.last)
                if not share > self.max_share:
                    continue
            elif initial_value(trace, "gradient_norm", site.path) == 0:
                continue
            facts = trace.parameters.get(site.path)
            units = f"the {facts.shape[0]} units" if facts and facts.shape else "the units"
            value = _constant(trace, site.path)
            because = "" if value is None else f": every weight starts at {value:.2g}"
            since = f"from step 0 to step {later.steps[-1]}" if later else "at step 0"
            yield self.finding(
                site,
                f"{share:.0%} of {units} have the weights and the gradient of another unit "
                f"{since} (limit {self.max_share:.0%}){because}",
                parameter=site.path,
                step=0,
                evidence={"share": share, "limit": self.max_share, "constant": value is not None},
            )


def _constant(trace: Trace, path: str) -> float | None:
    """Return the one value that all entries of a parameter start at, or None."""
    mean = initial_value(trace, "weight_mean", path)
    std = initial_value(trace, "weight_std", path)
    return mean if mean is not None and std is not None and std <= 1e-9 * abs(mean) else None


def _layers(trace: Trace) -> set[tuple[str, ...]]:
    """Return the weight layers, told apart by their parameters: tied ones count once."""
    return {op.parameters for op in trace.weight_layers()}


def _is_hidden(trace: Trace, op: Operation) -> bool:
    return op.kind in WEIGHTED and any(
        o.kind in WEIGHTED and not o.in_loss for o in trace.graph.descendants(op)
    )
