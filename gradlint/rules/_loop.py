"""What rules ask of a watched training loop. No rule here."""

from __future__ import annotations

from collections.abc import Iterable

from gradlint.graph import WEIGHTED, Operation
from gradlint.rules._losses import noise, progress
from gradlint.rules._optimizer import given
from gradlint.trace import Observation, ParameterFacts, StrangerFacts, Trace

NO_LOOP = "no training loop was watched"


def learned(trace: Trace, path: str) -> bool:
    """Whether a parameter had a gradient other than zero at any step, whatever it has now.

    In a loop a part can rest for a while: the other side of a GAN, a head of another task,
    layers unfrozen later.
    """
    return any(value != 0 for value in trace.of("gradient_norm").at(path).values)


def moved(trace: Trace, path: str) -> bool:
    """Whether a step changed a parameter, whoever wrote to it."""
    return any(value > 0 for value in _own(trace, "update_to_weight_ratio", path).training.values)


def keeps(trace: Trace, path: str) -> bool:
    """Whether a parameter's norm stayed, within what steps observed less closely measure."""
    norms = _own(trace, "weight_norm", path).values
    return not norms or max(norms) - min(norms) <= 1e-6 * max(norms)


def stood_still(trace: Trace, path: str) -> bool:
    """Whether a tensor in the place of another was seen with a gradient, and at a step after."""
    gradients = _own(trace, "gradient_norm", path).values
    return any(value != 0 for value in gradients) and (
        len(_own(trace, "update_to_weight_ratio", path)) > 0
    )


def _own(trace: Trace, metric: str, path: str) -> Trace:
    """Observations of a parameter, not of one whose place it has taken."""
    seen = trace.of(metric).at(path)
    facts = trace.parameters.get(path)
    return seen.since(facts.since) if facts is not None and facts.since else seen


def without_the_model(trace: Trace) -> bool:
    """Whether a loop optimizes something else than its models: an image, a prompt, a latent code.

    Its optimizer holds foreign tensors and none of the models' parameters, and the loss answers
    to its steps: it changed by a quarter and by more than its noise. It does not where the
    model was built anew after the optimizer.
    """
    optimizer = given(trace)
    if trace.facts.loop is None or optimizer is None or optimizer.foreign == 0:
        return False
    if any(p.in_optimizer for p in trace.parameters.values()):
        return False
    seen = progress(trace)
    if seen is None:
        return False
    first, late = seen
    return abs(late - first) > max(0.25 * abs(first), 3 * noise(trace))


def roots(trace: Trace) -> frozenset[str]:
    """Paths of the models themselves: ``""``, or a label for each that a loop calls.

    Several models stand below a root that is no module of the user's: its kind is "models".
    """
    root = trace.modules.get("")
    if trace.facts.loop is None or not trace.modules or (root and root.kind != "models"):
        return frozenset({""})
    return frozenset(path.partition(".")[0] for path in trace.modules if path)


def same_model(trace: Trace, path: str, other: str) -> bool:
    """Whether two paths belong to one of several models."""
    names = roots(trace)
    return names == {""} or path.partition(".")[0] == other.partition(".")[0]


def cleared(trace: Trace) -> bool:
    """Whether every observed step saw no gradient although backward had left one."""
    left = trace.of("backward_gradient_norm").at("").training.values
    seen = trace.of("total_gradient_norm").at("").training.values
    return bool(left and seen) and all(v != 0 for v in left) and not any(seen)


def nobody_trains(trace: Trace) -> bool:
    """Whether a loop was watched in which gradients are only looked at, or never computed."""
    loop = trace.facts.loop
    if loop is None:
        return False
    exists = trace.facts.optimizer is not None or bool(loop.idle_optimizers)
    return loop.backwards == 0 or not (exists or loop.by_hand)


def new_leaf(trace: Trace) -> Operation | None:
    """Return the tensor without a history that a loss is computed from, if none of a layer is.

    No parameter of the model got a gradient, and the graph behind the loss begins at a tensor
    of its own (``torch.tensor(values, requires_grad=True)``), holds no layer and no parameter.
    """
    trainable = [p for p in trace.parameters.values() if p.requires_grad]
    optimizer = given(trace)
    if not trainable or optimizer is None or optimizer.foreign or cleared(trace):
        return None
    if any(p.gradient != "missing" or learned(trace, p.path) for p in trainable):
        return None
    roots = [op for op in trace.graph if not op.inputs]
    layers = WEIGHTED | {"embedding", "matmul", "attention"}
    if len(roots) != 1 or any(op.parameters or op.kind in layers for op in trace.graph):
        return None
    return roots[0] if roots[0].kind == "input" else None


def strangers(trace: Trace) -> tuple[StrangerFacts, ...]:
    """Return the optimizers that stepped, with nothing to apply, while no model was updated."""
    loop = trace.facts.loop
    return loop.strangers if loop is not None and loop.steps == 0 else ()


def left_alone(trace: Trace, path: str) -> bool:
    """Whether `path` is one of several models, and no optimizer holds any part of it."""
    if path not in roots(trace) - {""}:
        return False
    return not any(p.in_optimizer for p in _inside(trace, path).values())


def twin(trace: Trace, path: str) -> str | None:
    """Return another model with the names and shapes of the one at `path` that is trained."""
    if path not in roots(trace) - {""}:
        return None
    mine = _inside(trace, path)
    for other in sorted(roots(trace) - {path}):
        theirs = _inside(trace, other)
        same = {n: p.shape for n, p in mine.items()} == {n: p.shape for n, p in theirs.items()}
        if mine and same and any(p.requires_grad for p in theirs.values()):
            return other
    return None


def _inside(trace: Trace, root: str) -> dict[str, ParameterFacts]:
    """Parameters of the model labelled `root`, by their path in it."""
    return {
        path.removeprefix(f"{root}."): facts
        for path, facts in trace.parameters.items()
        if path.startswith(f"{root}.")
    }


def by_stream(trace: Trace, observations: Iterable[Observation]) -> dict[str, list[Observation]]:
    """Group observations of steps by whose steps they are: the sites of "stream_loss".

    A loop with one optimizer has one stream, "".
    """
    names = {o.step: o.site.path for o in trace.of("stream_loss")}
    found: dict[str, list[Observation]] = {}
    for seen in sorted(observations, key=lambda o: o.step):
        found.setdefault(names.get(seen.step, ""), []).append(seen)
    return found


def of_stream(trace: Trace, stream: str) -> tuple[str, str]:
    """Return the module that a stream trains, and how a message names its steps."""
    module = stream.partition(":")[0]
    return (module if module in trace.modules else ""), (f" of {stream}" if stream else "")
