"""One observed run of `check`: initialization over several batches, then a short training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.errors import GradlintError, TargetError
from gradlint.hooks import loss as losses
from gradlint.hooks.lines import with_lines
from gradlint.hooks.merge import merged_losses
from gradlint.hooks.sites import is_lazy, optimizer_facts
from gradlint.hooks.tensor_facts import merged, named_tensors, tensor_facts
from gradlint.hooks.written import Numbers, written
from gradlint.plan import Plan, Run, TargetRaisedError, probe_optimizer
from gradlint.probes.non_finite import in_tensors, origin
from gradlint.probes.questions import ask
from gradlint.probes.target_values import target_values
from gradlint.probes.wiring import unregistered
from gradlint.target.batches import Batch
from gradlint.target.target import Target
from gradlint.target.trial import copied
from gradlint.target.user_code import say
from gradlint.target.variants import copied_batch
from gradlint.trace import Event, Facts, LossFacts, TensorFacts

INITIAL_BATCHES = 3
"""Batches of the initialization pass: one batch's accident must not look like the model's."""

ARMED_STEPS = 3
"""First training steps whose gains are measured; after them every fifth."""

DETAILED_STEPS = 10
"""First training steps at which activations are measured; after them every fifth, or an eighth
of a short training: what persists has to be seen in its second half, too."""


class Training:
    """Observes `model` over batches of `target`; `run` may be called once."""

    def __init__(
        self,
        target: Target,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        plan: Plan,
        seed: int,
    ) -> None:
        self.target = target
        self.model = model
        self.plan = plan
        first = next(model.parameters(), None)
        self.device = first.device if first is not None else torch.device("cpu")
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.given = optimizer is not None
        self.optimizer = optimizer or probe_optimizer(self.trainable)
        self.batches = target.batches(model, seed)
        sources = plan.sources(model) if plan.sources else None
        self.observer = Observer(model, optimizer, sources=sources)
        self.losses: list[LossFacts] = []
        self.written: dict[str, Numbers] = {}
        self.seen: dict[str, list[tuple[TensorFacts, ...]]] = {
            "inputs": [], "targets": [], "outputs": []
        }  # fmt: skip
        self.probes: dict[str, Mapping[str, Any]] = {}
        self.random_state = torch.get_rng_state()
        self.finite = True
        self.step = 0

    def run(self) -> Run:
        """Observe initialization, then train; the model is changed."""
        observer = self.observer
        observer.events += list(unregistered(self.model))
        optimizer = self._optimizer_facts()
        error = None
        try:
            with observer:
                self._check_parameters()
                if self._initialize():
                    self._train()
        except TargetRaisedError as failure:
            error = failure.error
            cause = error.__cause__ or error
            detail = {"phase": failure.phase, "type": type(cause).__name__, "message": str(error)}
            running = observer.calls.running
            observer.events.append(Event("exception", self.step, running, detail))
        targets = target_values(self.seen["targets"])
        if targets is not None:
            self.probes["targets"] = targets
        if self.written:
            self.probes["written-losses"] = self.written
        facts = Facts(
            inputs=merged(self.seen["inputs"]),
            targets=merged(self.seen["targets"]),
            outputs=merged(self.seen["outputs"]),
            losses=tuple(merged_losses(self.losses)),
            optimizer=optimizer,
            probes=self.probes,
            synthesized=self.target.synthesized,
            pretrained=self.plan.pretrained or bool(optimizer and optimizer.has_state),
            batch_size=self._batch_size(),
        )
        return Run(observer.trace(facts), error)

    def _optimizer_facts(self) -> Any:
        if self.optimizer is None:
            return None
        return optimizer_facts(self.optimizer, self.model, probe=not self.given)

    def _batch_size(self) -> int | None:
        tensors = [t for _, t in named_tensors(self.batches[0].inputs, "input") if t.ndim]
        return int(tensors[0].shape[0]) if tensors else None

    # -- phases -----------------------------------------------------------------------

    def _initialize(self) -> bool:
        """Observe the first batches before any update; return whether it can be trained."""
        observer = self.observer
        observer.open_window()
        count = min(INITIAL_BATCHES, len(self.batches))
        for index in range(count):
            self.plan.tell("initialization", index / count)
            self.model.zero_grad(set_to_none=True)
            with observer.step(0):
                ready = self._forward_backward(self.batches[index], lines=index == 0, facts=True)
                if ready:
                    observer.gradients(initial=index == 0, symmetry=True)
                if index == count - 1 or not ready:
                    observer.close_window()
                values = observer.read()
                self._check_step(values, self.batches[index], 0)
            if not ready or not self.finite:
                return False
        return True

    def _train(self) -> None:
        if self.optimizer is None or self.plan.steps < 1:
            return
        observer = self.observer
        started = time.monotonic()
        half = max(1, self.plan.steps // 2)
        every = max(1, min(5, self.plan.steps // 8))
        for step in range(1, self.plan.steps + 1):
            self.step = step
            self.plan.tell("training", step / self.plan.steps)
            if step == half + 1:
                observer.open_window()
            batch = self.batches[(step - 1) % len(self.batches)]
            armed = step <= ARMED_STEPS or step % 5 == 0
            self.optimizer.zero_grad(set_to_none=True)
            self.model.zero_grad(set_to_none=True)
            detailed = step <= DETAILED_STEPS or step % every == 0
            with observer.step(step, detailed=detailed):
                if not self._forward_backward(batch, gains=armed):
                    return
                observer.gradients()
                values = observer.read()
                self._check_step(values, batch, step)
                if not self.finite:
                    return
                observer.learning_rates(
                    float(g["lr"]) for g in self.optimizer.param_groups if "lr" in g
                )
                observer.before_update()
                self._optimizer_step(self.optimizer, batch)
                observer.after_update()
                over = step == self.plan.steps or self._late(started)
                if over:
                    observer.close_window()
                    observer.symmetry()
                observer.read()
            if over:
                break
        self.probes |= ask(
            self.model,
            self.batches,
            self._call,
            self.step,
            own_step=self.target.training_step is not None,
            fresh=None if self.target.synthesized else self._fresh,
            losses={loss.kind for loss in self.losses},
        )

    def _fresh(self) -> nn.Module:
        """Return the model as it was before the training, or another that is built like it."""
        model = self.target.build()
        own = model if self.target.rebuildable else copied(model, model)
        return own.to(self.device)

    def _late(self, started: float) -> bool:
        return self.plan.seconds is not None and time.monotonic() - started > self.plan.seconds

    # -- one step ---------------------------------------------------------------------

    def _forward_backward(
        self, batch: Batch, *, gains: bool = True, lines: bool = False, facts: bool = False
    ) -> bool:
        """Run one forward and backward; return whether there was a backward to run."""
        observer = self.observer
        self.random_state = torch.get_rng_state()
        if facts:
            self._note("inputs", batch.inputs, "input")
            self._note("targets", batch.targets, "target")
        try:
            with with_lines() if lines else nullcontext():
                loss, outputs, targets = self._call(self.model, batch)
        except TargetError as error:
            in_loss = self._note_failed_loss(error, observer.outputs, batch.targets)
            if not any(self.seen["outputs"]):
                self._note("outputs", observer.outputs, "output")
            phase = "loss" if in_loss or observer.outputs is not None else "forward"
            raise TargetRaisedError(phase, error) from error
        if facts:
            self._note("outputs", outputs, "output")
        observer.forward_done(loss, gains=gains)
        if loss.grad_fn is None:  # also where somebody set requires_grad on a new tensor
            if self.trainable:
                observer.events.append(Event("detached-loss"))
            return False
        if facts and observer.captured is not None:
            given = [t for _, t in named_tensors(outputs, "output") if t.is_floating_point()]
            wanted = [t for _, t in named_tensors(targets, "target")]
            self.losses += losses.from_graph(observer.captured, given, wanted)
            self.written = {**written(observer.captured, given), **self.written}
        try:
            observer.backward(loss)
        except GradlintError:
            raise
        except Exception as error:
            failure = TargetError(f"expected backward to run from the loss, got {say(error)}")
            failure.__cause__ = error
            raise TargetRaisedError("backward", failure) from error
        return True

    def _call(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any, Any]:
        """Run forward and loss as the training does; the batch stays as it is."""
        with self.plan.autocast(self.device):
            return self.target.call(model, copied_batch(batch))

    def _note(self, which: str, value: Any, name: str) -> None:
        tensors = named_tensors(value, name)
        self.seen[which].append(tuple(tensor_facts(label, t) for label, t in tensors))

    def _note_failed_loss(self, error: Exception, outputs: Any, targets: Any) -> bool:
        """Note what entered a loss that raised; return whether it was one of torch's."""
        raised = losses.from_error(error)
        known = raised or losses.from_call(self.target.loss_fn, outputs, targets)
        if known is not None:
            self.losses.append(known)
        return raised is not None

    def _optimizer_step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        def closure() -> Tensor:
            self.model.zero_grad(set_to_none=True)
            with self.observer.not_reading():
                loss, _, _ = self._call(self.model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        if not self.given:
            _make_dense(self.trainable)
        try:
            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.step(closure)  # type: ignore[no-untyped-call]
            else:
                optimizer.step()
        except GradlintError as error:
            if not isinstance(error, TargetError):
                raise
            raise TargetRaisedError("optimizer", error) from error
        except Exception as error:
            name = type(optimizer).__name__
            failure = TargetError(
                f"expected {name}.step to run without arguments, got {say(error)}"
            )
            failure.__cause__ = error
            raise TargetRaisedError("optimizer", failure) from error

    # -- what is not finite -----------------------------------------------------------

    def _check_parameters(self) -> None:
        found = in_tensors({n: p for n, p in self.model.named_parameters() if not is_lazy(p)})
        if found is not None:
            path, value, _ = found
            detail = {"phase": "parameter", "operation": path, "value": value, "fed_by": ""}
            module = path.rpartition(".")[0]
            self.observer.events.append(Event("non-finite", 0, module, detail))

    def _check_step(self, values: Mapping[tuple[str, str], float], batch: Batch, step: int) -> None:
        """Note where the first NaN or infinity comes from, if the step has one that matters."""
        loss = values.get(("loss", ""), 0.0)
        norm = values.get(("total_gradient_norm", ""), 0.0)
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self.finite = False
        if any(e.name == "non-finite" for e in self.observer.events):
            return
        given = {"input": batch.inputs, "target": batch.targets}
        event = origin(
            self.observer, lambda m: self._call(m, batch)[0], given, self.random_state, step, loss
        )
        self.observer.events.append(event)


def _make_dense(parameters: list[nn.Parameter]) -> None:
    """Make sparse gradients dense: gradlint's own Adam takes no others, the user's may not."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.layout is not torch.strided:
            parameter.grad = parameter.grad.to_dense()
