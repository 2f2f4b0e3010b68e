"""Weights that are kept as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import learned, roots, same_model
from gradlint.rules._losses import CLASSIFICATION, is_shape
from gradlint.rules._optimizer import given, is_copy, topmost
from gradlint.rules.base import Rule
from gradlint.trace import ParameterFacts, Trace

_GAINS = (1 / math.sqrt(3), 1.0, math.sqrt(2))
"""Torch's default for Linear and Conv, LeCun's, Kaiming's; Xavier's depends on the shape."""

_TRANSFORMERS = 0.02
"""Standard deviation of fresh weights in BERT, GPT-2, ViT, whatever their shape."""


@dataclass(frozen=True)
class FrozenParameters(Rule):
    """Parameters with ``requires_grad=False``.

    ## What it does
    Notes which modules are frozen. It is an error where nothing is left to train, where the
    optimizer holds frozen parameters only, and where frozen linear and convolution weights
    make up more than `max_share` of the model and have the spread of a fresh initialization
    (within `tolerance`), not of loaded weights, and feed layers that learn. It is one, too, where
    a state dict loaded with `strict=False` held all that is frozen under other names.

    ## Why is this bad?
    A frozen random layer is a random projection: what it throws away no later layer gets
    back. The usual reason is weights that were meant to be loaded.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 5)
    )
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 5)
    )
    ```

    ## When it is wrong
    Random features (reservoirs, random Fourier features, random network distillation) are
    frozen and fresh by design. A frozen copy of a part that learns (a target), a teacher beside
    it, and what trained adapters (LoRA, by their name or their zero matrix) are added to, are
    notes; so is a model all of which is frozen in a watched loop that optimizes something else.
    What had a gradient at any step (a side of a GAN, layers unfrozen later) is not frozen.

    ## References
    - Yosinski et al. (2014), "How transferable are features in deep neural networks?", section
      4.3: frozen random lower layers
    - The tolerance is our choice: the spread of n fresh weights is known to about 1 / √(2n)
    """

    code: ClassVar = "GL712"
    name: ClassVar = "frozen-parameters"
    severity: ClassVar = Severity.NOTE
    help: ClassVar = "Unfreeze with requires_grad_(True), or load the weights that are to be kept."
    stage: ClassVar = Stage.WIRING

    max_share: float = 0.5
    tolerance: float = 0.05

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each topmost frozen module; one for the model if it is an error."""
        parameters = list(trace.parameters.values())
        frozen = [p for p in parameters if not p.requires_grad and not learned(trace, p.path)]
        if not frozen:
            return
        kept = {p.path for p in frozen}
        learning = [p for p in parameters if p.path not in kept]
        held = [p for p in parameters if p.in_optimizer] if given(trace) else []
        if not learning and not _other_work(trace):
            yield self._error(
                trace, f"all {len(frozen)} parameters of the model are frozen", frozen
            )
            return
        if held and kept.issuperset(p.path for p in held) and not _other_work(trace):
            text = f"all {len(held)} parameters that the optimizer holds are frozen"
            yield self._error(trace, text, held)
            return
        groups = topmost(frozen, learning)
        for path in [path for path, group in groups.items() if all(p.unloaded for p in group)]:
            yield self._unloaded(trace, path, groups.pop(path))
        adapted = any(_is_adapter(trace, p) for p in learning)
        random = [
            p
            for path, group in groups.items()
            if not (trace.facts.pretrained or adapted)
            and not is_copy(path, group, [q for q in learning if same_model(trace, q.path, path)])
            for p in group
            if self._fresh(trace, p) and _feeds_training(trace, p, learning)
        ]
        wrong = [found for root in roots(trace) if (found := self._random(trace, root, random))]
        if wrong:
            yield from wrong
            return
        for path, group in groups.items():
            noun = "parameter is" if len(group) == 1 else "parameters are"
            yield self.finding(
                path,
                f"{len(group)} {noun} frozen in {path or 'the model'}",
                trace=trace,
                evidence={"parameters": len(group), "entries": sum(p.numel for p in group)},
            )

    def _random(self, trace: Trace, root: str, random: Sequence[ParameterFacts]) -> Finding | None:
        """Return the finding of a model most of whose weights are frozen as initialized."""
        own = [p for p in trace.parameters.values() if not root or p.path.startswith(f"{root}.")]
        paths = {p.path for p in own}
        group = [p for p in random if p.path in paths]
        share = sum(p.numel for p in group) / max(1, sum(p.numel for p in own))
        # One of several that is frozen as a whole judges the others, or is what they train for.
        trains = any(p.requires_grad for p in own)
        if share <= self.max_share or not trains:
            return None
        return self._error(
            trace,
            f"frozen weights with the spread of a fresh initialization are {share:.0%} of "
            f"{root or 'the model'} (limit {self.max_share:.0%})",
            group,
            share=share,
        )

    def _unloaded(self, trace: Trace, path: str, group: Sequence[ParameterFacts]) -> Finding:
        noun = "parameter is" if len(group) == 1 else "parameters are"
        return self.finding(
            path,
            f"{len(group)} {noun} frozen in {path or 'the model'} as initialized: the state dict "
            "that was loaded holds them under other names",
            trace=trace,
            severity=Severity.ERROR,
            exact=True,
            help="Rename the keys of the state dict (a prefix is too many or missing), and load it "
            "with strict=True.",
            evidence={"parameters": len(group), "entries": sum(p.numel for p in group)},
        )

    def _error(
        self,
        trace: Trace,
        message: str,
        group: Sequence[ParameterFacts],
        share: float | None = None,
    ) -> Finding:
        places = tuple(dict.fromkeys(p.module for p in group))
        return self.finding(
            places[0],
            message,
            trace=trace,
            modules=places,
            severity=Severity.ERROR,
            exact=share is None,
            evidence={"parameters": len(group), "share": share},
        )

    def _fresh(self, trace: Trace, parameter: ParameterFacts) -> bool:
        """Whether a weight of a linear layer or convolution has the spread of a usual recipe."""
        kind = trace.module_kind(parameter.module)
        small = len(parameter.shape) < 2 or parameter.numel < 256
        if small or parameter.loaded or "Embedding" in kind:
            return False
        if any(trace.of("frozen_change").at(parameter.path).training.values):
            return False  # GL706's to say
        gain = trace.of("init_gain").at(parameter.path).initial.first
        fans = parameter.fan_in, parameter.fan_out
        xavier = math.sqrt(2 * fans[0] / sum(fans)) if all(fans) else 1.0
        mean = trace.of("weight_mean").at(parameter.path).initial.first
        spread = trace.of("weight_std").at(parameter.path).initial.first
        centered = abs(mean) < 5 * spread / math.sqrt(min(parameter.numel, 4096))
        near = any(abs(gain / usual - 1) < self.tolerance for usual in (*_GAINS, xavier))
        near = near or abs(spread / _TRANSFORMERS - 1) < self.tolerance
        return near and centered


def _other_work(trace: Trace) -> bool:
    """Whether a watched loop is there for something else than its models' parameters.

    It evaluates, or its gradients go to an image, a prompt or a latent code: into nothing but
    frozen parameters backward does not run.
    """
    if trace.facts.loop is None or trace.events("detached-loss"):
        return False
    optimizer = given(trace)
    return optimizer is None or optimizer.foreign > 0


def _feeds_training(
    trace: Trace, frozen: ParameterFacts, learning: Sequence[ParameterFacts]
) -> bool:
    """Whether what learns reads what `frozen` makes: not so for a teacher beside it.

    Frozen layers behind trained ones stand in the graph. Those in front do not: then a layer
    that learns reads something without gradient that is not the batch: its size differs, or
    nothing else is left to read what is frozen, as where a loss compares with class labels.
    """
    if trace.graph.reading(frozen.path):
        return True
    batch = {prod(tensor.shape) for tensor in trace.facts.inputs}
    batch = set() if _compares_with_labels(trace) else batch
    own = trace.modules.get(frozen.module)
    return any(
        reader is not None
        and own is not None
        and same_model(trace, own.path, reader.path)
        and reader.depth > own.depth
        and reader.input_shape is not None
        and prod(reader.input_shape) not in batch
        and all(not op.inputs for op in trace.graph.reading(p.path))
        for p in learning
        if len(p.shape) >= 2
        for reader in [trace.modules.get(p.module)]
    )


def _compares_with_labels(trace: Trace) -> bool:
    """Whether the loss compares with class labels and nothing else: a teacher has no say."""
    losses = trace.facts.losses
    labels = losses and all(
        loss.kind in CLASSIFICATION and loss.target is not None and loss.target.integral
        for loss in losses
    )
    terms = [op for op in trace.graph if op.in_loss and not is_shape(op)]
    return bool(labels) and sorted(op.kind for op in terms) == ["log_softmax", "nll"]


def _is_adapter(trace: Trace, parameter: ParameterFacts) -> bool:
    """Whether a trainable matrix is an adapter's: named so, or zero at initialization."""
    if len(parameter.shape) < 2:
        return False
    if any(name in parameter.path.lower() for name in ("lora", "adapter")):
        return True
    return trace.of("weight_abs_max").at(parameter.path).initial.first == 0
