"""Weights that stay, bit for bit, although the optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP, keeps
from gradlint.rules._optimizer import NOT_GIVEN, given
from gradlint.rules._updates import HALF_ULP, below_rounding
from gradlint.rules.base import Rule
from gradlint.trace import ParameterFacts, Trace


@dataclass(frozen=True)
class WeightsUnchanged(Rule):
    """Parameters that have a gradient, a learning rate, and never change.

    ## What it does
    Looks at the true update of every parameter that an optimizer holds, and of all where weights
    are updated by hand. Flags those that were equal before and after every observed step with a
    gradient and a learning rate above zero, at least `min_steps` of them. In half precision,
    where the update is smaller than the weight's own rounding, it is an error if most of the
    model stands still, a warning for single weight matrices and a note for vectors. Flags, too,
    weight matrices that somebody puts back between steps: of what the optimizer changes, no more
    than `max_kept` is left when its next step begins. It is an error where they are most of the
    model.

    ## Why is this bad?
    These weights keep their values for ever. A bfloat16 weight has 8 significant bits: an
    update below 1/256 to 1/512 of it is rounded away, at every step anew.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5)).to(torch.bfloat16)
    for p in model.parameters():
        nn.init.constant_(p, 0.5) if p.ndim == 1 else nn.init.uniform_(p, 0.25, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x, y = torch.randn(64, 16).to(torch.bfloat16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    ```

    ## When it is wrong
    Embeddings move by rows and are left out; so is everything where one of several learning
    rates is zero on purpose, and where an optimizer is idle, which is another rule's. In single
    precision an update below rounding is a matter of the learning rate: `update-too-small`
    speaks of it, and this rule does not. A parameter that moves at any step is not meant.
    Weights held by a bound or a mask are not put back; an average that is put in for an
    evaluation, and taken out after it, is not seen by a step.

    ## References
    - Zamirai et al. (2020), "Revisiting BFloat16 training", section 3: nearest rounding of weight
      updates cancels small ones
    - `max_kept` is our choice: averages of decay 0.99 and more keep 0.01 of a step and less;
      rows of length one, masks of pruning, resets and Lookahead keep more than 0.1, and of
      weights held by a clamp nothing is said (all in tests/watch/test_kept.py)
    - IEEE 754: half a unit in the last place is 2⁻⁸ of a bfloat16 number at most
    """

    code: ClassVar = "GL406"
    name: ClassVar = "weights-unchanged"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("update_to_weight_ratio",)
    stage: ClassVar = Stage.UPDATE
    exact: ClassVar = True
    help: ClassVar = (
        "Give the optimizer the very tensors that forward reads, after the model was moved and "
        "converted."
    )

    min_steps: int = 3
    max_kept: float = 0.02

    def skip_reason(self, trace: Trace) -> str | None:
        """Say why unchanged weights would be no fault."""
        loop = trace.facts.loop
        if loop is None:
            return NO_LOOP
        if loop.idle_optimizers:
            return "an optimizer is idle: what it holds stands still"
        optimizer = given(trace)
        if optimizer is None and loop.by_hand:
            return super().skip_reason(trace)
        if optimizer is None or loop.by_hand:
            return NOT_GIVEN
        rates = optimizer.learning_rates
        if any(rates) and not all(rates):
            return "a learning rate is 0 on purpose"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each parameter that never changed."""
        if given(trace) is None:
            yield from self._by_hand(trace)
            return
        yield from self._put_back(trace)
        still = {p.path: n for p in trace.parameters.values() if (n := self._still(trace, p))}
        rounded = {path for path in still if below_rounding(trace, trace.parameters[path])}
        trainable = sum(p.numel for p in trace.parameters.values() if p.requires_grad)
        lost = sum(trace.parameters[path].numel for path in rounded)
        most = 2 * lost > trainable
        for path, steps in still.items():
            parameter = trace.parameters[path]
            if path in rounded and parameter.dtype not in ("bfloat16", "float16"):
                continue
            text = f"{path} did not change in {steps} steps with a gradient"
            severity, advice = Severity.ERROR, self.help
            if path in rounded:
                text += f": the update is smaller than the precision of its {parameter.dtype}"
                advice = "Keep the weights, or a copy for the optimizer, in float32."
                if not most:
                    severity = Severity.WARNING if len(parameter.shape) > 1 else Severity.NOTE
            site = trace.of("update_to_weight_ratio").at(path).sites[0]
            yield self.finding(
                site,
                text,
                parameter=path,
                severity=severity,
                help=advice,
                evidence={"steps": steps, "dtype": parameter.dtype, "rounded": path in rounded},
            )

    def _still(self, trace: Trace, parameter: ParameterFacts) -> int:
        """Return at how many steps a parameter ought to have moved, if it never did; else 0."""
        if not parameter.requires_grad or parameter.in_optimizer is not True:
            return 0
        if "Embedding" in trace.module_kind(parameter.module):
            return 0
        ratios = trace.of("update_to_weight_ratio").at(parameter.path).training
        if any(value != 0 for value in ratios.values):  # NaN: it was zero, and may have moved
            return 0
        rates = {o.step: o.value for o in trace.of("learning_rate").at("")}
        gradients = trace.of("gradient_norm").at(parameter.path)
        pushed = {o.step for o in gradients if o.value > 0 and math.isfinite(o.value)}
        asked = [s for s in ratios.steps if s in pushed and rates.get(s, 0.0) > 0]
        return len(asked) if len(asked) >= self.min_steps and keeps(trace, parameter.path) else 0

    def _put_back(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for all weights that are put back between steps."""
        shares = trace.of("kept_update_share").training
        seen = {path: shares.at(path).values for path in trace.parameters}
        kept = {path: max(values) for path, values in seen.items() if len(values) > 1}
        back = [trace.parameters[path] for path, share in kept.items() if share <= self.max_kept]
        if not back:
            return
        known = sum(trace.parameters[path].numel for path in kept)
        most = 2 * sum(p.numel for p in back) > known
        first, share = back[0], max(kept[p.path] for p in back)
        others = f" (and {len(back) - 1} more)" if len(back) > 1 else ""
        left = f"at most {share:.1%}" if share > 0 else "nothing"
        yield self.finding(
            first.module,
            f"{first.path}{others} is put back between steps: {left} of what the optimizer "
            "changes is left when its next step begins",
            trace=trace,
            parameter=first.path,
            modules=tuple(dict.fromkeys(p.module for p in back)),
            severity=Severity.ERROR if most else Severity.WARNING,
            help="Load or copy weights into the model before the loop, not in it; put an average "
            "into a copy of the model.",
            evidence={"weights": len(back), "share": share},
        )

    def _by_hand(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each parameter that updates by hand leave out."""
        parameters = [p for p in trace.parameters.values() if p.requires_grad]
        moved = [p for p in parameters if _moves(trace, p) > 0]
        rate = max((_moves(trace, p) / _pushed(trace, p) for p in moved if _pushed(trace, p)),
                   default=0.0)  # fmt: skip
        for parameter in parameters:
            path = parameter.path
            updates = trace.of("update_to_weight_ratio").at(path).training
            expected = rate * _pushed(trace, parameter)
            lost = expected < 10 * HALF_ULP.get(parameter.dtype, 2.0**-24)
            if lost or len(updates) < self.min_steps or any(v != 0 for v in updates.values):
                continue
            if not keeps(trace, path):
                continue
            yield self.finding(
                updates.sites[0],
                f"{path} did not change in {len(updates)} steps with a gradient, while updates by "
                f"hand changed {moved[0].path}",
                parameter=path,
                help="Update all of model.parameters(); freeze what is not to learn.",
                evidence={"steps": len(updates), "moved": len(moved)},
            )

    def fold(self, group: list[Finding]) -> Finding:
        """Return one finding for all parameters of `group`."""
        first = group[0]
        if len(group) == 1:
            return first
        places = tuple(dict.fromkeys(m for f in group for m in f.modules))
        return first.but(
            modules=places,
            parameter=None,
            message=f"{first.message} (and {len(group) - 1} more)",
            evidence={**first.evidence, "parameters": len(group)},
        )


def _moves(trace: Trace, parameter: ParameterFacts) -> float:
    """Return the usual update of a parameter, as a share of it."""
    moves = trace.of("update_to_weight_ratio").at(parameter.path).training.median
    return moves if math.isfinite(moves) else 0.0


def _pushed(trace: Trace, parameter: ParameterFacts) -> float:
    """Return the usual gradient of a parameter, as a share of it."""
    norm = trace.of("weight_norm").at(parameter.path).median
    gradient = trace.of("gradient_norm").at(parameter.path).training.median
    return gradient / norm if norm > 0 and math.isfinite(gradient) else 0.0
