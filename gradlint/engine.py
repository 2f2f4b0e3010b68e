"""Engine: tensors in, a Trace out. Reads each step's numbers back in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from gradlint.finding import Source
from gradlint.graph import Graph, Operation
from gradlint.hooks.calls import Calls
from gradlint.hooks.gains import GainRecorder, Gains
from gradlint.hooks.graph import CapturedGraph, capture
from gradlint.hooks.leaves import Leaves
from gradlint.hooks.manager import HookManager
from gradlint.hooks.modules import ModuleReader
from gradlint.hooks.operations import MAX_CALLS, OperationReader, readable
from gradlint.hooks.parameters import ParameterReader
from gradlint.hooks.ranks import class_of, is_distributed
from gradlint.hooks.sites import is_lazy, parameter_facts
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.hooks.weak import WeakMap
from gradlint.metrics import Metric, Tap, all_metrics, metrics_at
from gradlint.readout import Unread, flows_of, read_together
from gradlint.trace import MODEL, Event, Facts, Flow, Observation, Site, Trace

MAX_EARLIER = 4096
"""Calls of the step before that are kept where its operations may be read again."""


class Observer:
    """Observes models; a context, inside which hooks are in place.

    The caller drives: `step`, then the forward, `forward_done`, `backward`, `gradients`,
    `before_update`, `after_update`. Numbers stay on their device until `read`.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.roots: WeakMap[nn.Module] = WeakMap()
        """Models by their labels; "" where there is only one."""
        self._module_reader = ModuleReader(self.roots)
        self.modules = self._module_reader.modules
        self.facts_of_modules = self._module_reader.facts
        self.depths = self._module_reader.depths
        self.weights = ParameterReader(self.modules, self._put, self.depths)
        self.operations = OperationReader(self._put, self.depths, self.facts_of_modules)
        self.facts_of_parameters = self.weights.facts
        self._lazy: list[str] = []
        self.parameters = self.weights.parameters
        self.graph = Graph()
        """Structure of the first forward."""
        self.graph_of_step = self.graph
        """Structure of the latest forward."""
        self.last_gains = Gains()
        """Norms of the latest backward, if it was armed."""
        self.observations: list[Observation] = []
        self.events: list[Event] = []
        self.flows: list[Flow] = []
        self.leaves = Leaves()
        self.calls = Calls()
        self.outputs: Any = None
        self.captured: CapturedGraph | None = None
        self._step = 0
        self._pending: list[tuple[str, Site, int, Tensor]] = []
        self._measured = 0, 0
        """Which of them are of the operations of the latest graph."""
        self.recorder: GainRecorder | None = None
        self._reading = True
        self._detailed = True
        self.in_backward = False
        self.failed: Callable[[Exception], None] | None = None
        """Told of our own mistakes inside a backward; where there is none they are raised."""
        self._handles: list[RemovableHandle] = []
        self._stack = ExitStack()
        self._given = model
        if model is not None:
            self.admit(model, optimizer, sources=sources)

    # -- being in place ---------------------------------------------------------------

    def admit(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        label: str = "",
        *,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        """Observe `model`, its paths below `label`; what it has gained since is taken anew.

        It is not kept alive; one given to the constructor is.
        """
        self.roots[label] = model
        self._module_reader.admit(model, label, sources)
        self.weights.admit(model, optimizer, label)
        self._lazy = [path for path, p in self.parameters.items() if is_lazy(p)]
        self._module_reader.split = any(is_distributed(p) for p in self.parameters.values())

    @property
    def is_split(self) -> bool:
        """Whether parameters are distributed: whole ones stand in for them in a forward."""
        return self._module_reader.split

    @property
    def model(self) -> nn.Module:
        """The model, where there is only one."""
        (model,) = self.roots.values()
        return model

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for label, model in self.roots.items():
                stack.enter_context(HookManager(model, self, label))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self.close_step()
        self.outputs = None
        self.weights.forget()
        self._pending.clear()

    def close_step(self) -> None:
        """Drop what holds the step's tensors, and the hooks on them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.captured = None
        self.outputs = None
        self.recorder = None

    @contextmanager
    def step(self, number: int, *, detailed: bool = True) -> Iterator[None]:
        """Open step `number`; 0 is the initialization and may be opened once a batch.

        Without `detailed`, activations and the shape of gradients' distributions are left
        out; loss, norms, updates and which units fire are always measured.
        """
        self.open_step(number, detailed=detailed)
        try:
            with self.calls.noting_packed():
                yield
        finally:
            self.close_step()

    def open_step(self, number: int, *, detailed: bool = True, keep_calls: bool = False) -> None:
        """Open step `number`, to be closed by `close_step`; see `step`.

        With `keep_calls` the operations of the step before still have their addresses.
        """
        self._step = number
        self._detailed = detailed
        earlier = self.calls.finished if keep_calls else []
        self.calls = Calls()
        self.calls.finished += earlier[-MAX_EARLIER:]
        self.outputs = None
        self._module_reader.stand_ins = {}
        self.last_gains = Gains()

    @contextmanager
    def not_reading(self) -> Iterator[None]:
        """Run the model inside without recording what its modules return."""
        self._reading = False
        try:
            yield
        finally:
            self._reading = True

    # -- the forward ------------------------------------------------------------------

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Note that a module starts, and on what (called by its hook)."""
        self.calls.enter(path)
        again = self.calls.counts[path] > 1
        self._module_reader.enter(path, module, inputs, again=again, parameters=self.weights)

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Measure what a module returned (called by its hook)."""
        call = self.calls.leave(path)
        depth, order = self._module_reader.left(path)
        if path in self.roots:
            self.outputs = output
        if not self._reading:
            return
        tensors = [t for _, t in named_tensors(output, "output") if readable(t)]
        calls = self.calls.of_forward[path]
        self._module_reader.returned(path, tensors, order=order, calls=calls, first=call == 0)
        if not tensors or call >= MAX_CALLS or not self._detailed:
            return
        site = Site(path, class_of(module).__name__, depth, path)
        self.operations.output(site, tensors[0])
        if tensors[0].requires_grad and tensors[0].grad_fn is not None:
            hook = tensors[0].register_hook(self._arrival(site))  # type: ignore[no-untyped-call]
            self._handles.append(hook)

    def _arrival(self, site: Site) -> Callable[[Tensor | None], None]:
        """Return a hook that measures the gradient at a module's output."""

        def arrived(gradient: Tensor | None) -> None:
            # A gradient the model or the loss takes for itself (a penalty's) is not the loss's.
            # One of several outputs that nothing was made of gets None (an LSTM's states alone).
            if gradient is None or not self.in_backward:
                return
            try:
                for metric in metrics_at(Tap.ACTIVATION_GRAD):
                    self._put(metric, site, gradient)
            except Exception as error:
                if self.failed is None:
                    raise
                self.failed(error)

        # A model that keeps its output can be saved without a warning of our hook.
        unserializable_hook(arrived)  # type: ignore[no-untyped-call]
        return arrived

    def forward_done(self, loss: Tensor, *, gains: bool = True, note_loss: bool = True) -> None:
        """Read the graph behind `loss`; with `gains`, be ready to measure every operation's."""
        if note_loss:
            self.put("loss", loss)
        if self._lazy:
            self._materialize()
        if loss.grad_fn is None:
            return
        self.captured = self.read_graph(loss)
        self.leaves.note(self.captured, self.modules)
        if not self.graph:
            self.graph = self.captured.graph
        self.graph_of_step = self.captured.graph
        start = len(self._pending)
        self.operations.measure(self.captured, detailed=self._detailed, attention=self._step <= 1)
        self._measured = start, len(self._pending)
        if gains:
            self.recorder = GainRecorder(self.captured, self.failed)

    def _materialize(self) -> None:
        """Complete the facts of lazy modules, which learn their shapes in the first forward."""
        now = {
            path: facts
            for label, model in self.roots.items()
            for path, facts in parameter_facts(model, None, label).items()
        }
        for path in self._lazy:
            known, found = self.facts_of_parameters[path], now[path]
            self.facts_of_parameters[path] = replace(
                known, shape=found.shape, fan_in=found.fan_in, fan_out=found.fan_out
            )
        self._module_reader.complete({self.facts_of_parameters[p].module for p in self._lazy})
        self._lazy = [path for path in self._lazy if is_lazy(self.parameters[path])]

    def site_of(self, op: Operation) -> Site:
        """Return the site of an operation."""
        return self.operations.site_of(op)

    def close_window(self) -> None:
        """Judge rectifiers' units over all batches since the window was opened."""
        for name, site, value in self.operations.windows.measured():
            self._pending.append((name, site, self._step, value))
        self.operations.windows.open()

    def window(self, step: int) -> Iterator[Observation]:
        """Yield what `close_window` would measure at `step`, and keep the window open."""
        return self.operations.windows.observations(step)

    def open_window(self) -> None:
        """Forget which units fired so far."""
        self.operations.windows.open()

    def read_graph(self, loss: Tensor) -> CapturedGraph:
        """Return the graph behind `loss`, and change nothing."""
        names = self._module_reader.stand_ins | {id(p): path for path, p in self.parameters.items()}
        return capture(loss, self.calls, self.modules, names)

    def forget_graph(self) -> None:
        """Forget the graph that was read last, and what was measured of it."""
        if self.captured is not None and self.graph is self.captured.graph:
            self.graph = Graph()
        start, end = self._measured
        del self._pending[start:end]
        self._measured = 0, 0
        self.captured = self.recorder = None
        self.open_window()

    # -- the backward -----------------------------------------------------------------

    def backward(self, loss: Tensor) -> None:
        """Run backward from `loss`, measuring gains if the step is armed."""
        self.in_backward = True
        try:
            with self.recorder or nullcontext():
                loss.backward()  # type: ignore[no-untyped-call]
        finally:
            self.in_backward = False

    def release(self) -> None:
        """Drop the nodes of the latest graph, which keep tensors alive; keep its structure."""
        if self.captured is not None:
            self.captured = CapturedGraph(self.captured.graph)

    def gradients(self, *, initial: bool = False, symmetry: bool = False) -> None:
        """Measure every parameter's gradient, and at `initial` the weights themselves."""
        self.weights.gradients(initial=initial, symmetry=symmetry, detailed=self._detailed)

    def symmetry(self) -> None:
        """Measure, after the last step, which units are still copies of each other."""
        self.weights.symmetry()

    def before_update(self) -> None:
        """Keep the weights, to tell the true update."""
        self.weights.before_update()

    def after_update(self) -> None:
        """Measure what the optimizer step changed."""
        self.weights.after_update()

    def learning_rates(self, rates: Iterable[float]) -> None:
        """Note the largest of the optimizer's learning rates."""
        largest = max(rates, default=None)
        if largest is not None:
            self._put(all_metrics()["learning_rate"], MODEL, torch.tensor(largest))

    # -- reading back -----------------------------------------------------------------

    def _put(self, metric: Metric, site: Site, *tensors: Tensor) -> None:
        with torch.no_grad():
            self._pending.append((metric.name, site, self._step, metric(*tensors)))

    def put(self, name: str, value: Tensor, site: Site = MODEL) -> None:
        """Note a number of the whole run, measured by the caller."""
        self._put(all_metrics()[name], site, value)

    def note(self, name: str, value: Tensor) -> None:
        """Note a number of the whole run that needs no more measuring."""
        self._pending.append((name, MODEL, self._step, value))

    def put_at(self, name: str, site: Site, *tensors: Tensor) -> None:
        """Measure the metric `name` of `tensors` at `site`."""
        self._put(all_metrics()[name], site, *tensors)

    def unread(self) -> Unread:
        """Hand over what was measured since the last reading, still on its device."""
        graph = self.captured.graph if self.captured is not None else Graph()
        unread = Unread(self._pending, self.recorder, graph, self._step)
        self._pending = []
        self.recorder = None
        return unread

    def read(self) -> dict[tuple[str, str], float]:
        """Read everything measured since the last reading; return it by metric and path.

        One copy from each device. Of several values of one metric at one path (a module
        called more than once) the returned mapping holds the last.
        """
        unread = self.unread()
        return self.deliver(unread, read_together(unread.tensors))

    def deliver(self, unread: Unread, values: Sequence[float]) -> dict[tuple[str, str], float]:
        """Take the `values` of what `unread` handed over, in their order."""
        seen: dict[tuple[str, str], float] = {}
        gains_at = len(unread.pending)
        for (name, site, step, _), value in zip(unread.pending, values[:gains_at], strict=True):
            self.observations.append(Observation(name, site, step, value))
            seen[name, site.path] = value
        if unread.recorder is not None:
            self.last_gains = unread.recorder.gains(values[gains_at:])
            found, flows = flows_of(unread.graph, self.last_gains, unread.step, self.site_of)
            self.observations += found
            self.flows += flows
        return seen

    def trace(self, facts: Facts) -> Trace:
        """Return what was observed, with `facts` completed by events and flows."""
        return Trace(
            self.observations,
            modules=dict(self.facts_of_modules),
            parameters=dict(self.facts_of_parameters),
            graph=self.graph,
            facts=replace(
                facts,
                events=(*facts.events, *self.events, *self.leaves.events(self.modules)),
                flows=tuple(self.flows),
            ),
        )
