"""What rules ask of parts of a model that a loop calls one by one."""

from __future__ import annotations

from collections.abc import Sequence

from gradlint.rules._loop import keeps, moved
from gradlint.trace import ModuleFacts, ParameterFacts, QuietFacts, Trace

_UNIFORM = 1.85
"""A uniform distribution's largest entry is 1.73 of its standard deviations; of 256 entries of a
normal one, all are below 1.85 with a probability of 4e-8, and training leaves no sharp edge."""

_ENTRIES = 256

_STEPS = 2
"""Steps at least in which a part ran without gradient: one may be its initialization."""


def held_in_vain(trace: Trace, path: str, group: Sequence[ParameterFacts]) -> bool:
    """Whether an optimizer of a loop steps fresh weights of a part in training mode all the time.

    Nothing moves them, and nothing says that they were loaded: their distribution is the one
    that PyTorch initializes them with.
    """
    loop, facts = trace.facts.loop, trace.modules.get(path)
    if loop is None or loop.idle_optimizers or trace.facts.pretrained:
        return False
    if facts is None or not facts.training or not all(p.in_optimizer for p in group):
        return False
    if any(moved(trace, p.path) or not keeps(trace, p.path) for p in group):
        return False
    return _fresh(trace, group)


def _fresh(trace: Trace, group: Sequence[ParameterFacts]) -> bool:
    found = []
    for parameter in group:
        kind = trace.modules[parameter.module].kind if parameter.module in trace.modules else ""
        if len(parameter.shape) < 2 or parameter.numel < _ENTRIES or kind == "Embedding":
            continue  # ones, a sample too small, a normal distribution
        spread = trace.of("weight_std").at(parameter.path).initial.first
        largest = trace.of("weight_abs_max").at(parameter.path).initial.first
        found.append(0 < largest < _UNIFORM * spread)
    return bool(found) and all(found)


def reader_of(trace: Trace, path: str, learning: Sequence[ParameterFacts]) -> str | None:
    """Return a part that learns, and was called on the detached output of the one at `path`."""
    loop = trace.facts.loop
    for link in loop.detached if loop is not None else ():
        reads = any(_inside(p.module, link.reader) for p in learning)
        if reads and _inside(link.source, path):
            return link.reader
    return None


def quiet_before(trace: Trace, path: str, reader: ModuleFacts) -> bool:
    """Whether the part at `path` runs without gradient, and `reader` can be reading its output.

    `reader` is the first that learns. It reads no more samples than the part gives, and as many
    features; what is given the same as the part itself stands beside it.
    """
    loop = trace.facts.loop
    calls = [q for q in (loop.quiet if loop is not None else ()) if _inside(q.path, path)]
    return any(call.steps >= _STEPS and _fits(call, reader.input_shape or ()) for call in calls)


def quiet_alone(trace: Trace, path: str) -> bool:
    """Whether a part that an optimizer holds was called without gradient, never with, and stays.

    A policy that acts under no_grad and is not asked again for the loss; or a fixed random
    network on purpose, whose output is what another one learns: which of them is not known.
    """
    loop = trace.facts.loop
    calls = [q for q in (loop.quiet if loop is not None else ()) if _inside(q.path, path)]
    parts = [m for m in trace.modules.values() if _inside(m.path, path)]
    inside = [p for p in trace.parameters.values() if _inside(p.module, path)]
    return (
        any(call.steps >= _STEPS for call in calls)
        and not any(part.calls for part in parts)
        and all(p.in_optimizer and not moved(trace, p.path) for p in inside)
    )


def _fits(call: QuietFacts, given: tuple[int, ...]) -> bool:
    if len(given) < 2 or given == call.input_shape:
        return False
    return any(
        len(made) >= 2 and made[0] == given[0] and (given[1] == made[1] or given[-1] == made[-1])
        for made in call.output_shapes
    )


def _inside(path: str, outer: str) -> bool:
    return path == outer or not outer or path.startswith(f"{outer}.")
