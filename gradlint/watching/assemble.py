"""Assemble: everything a loop gave, as one Trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from gradlint.facts import Facts, ModuleFacts, OptimizerFacts, ParameterFacts
from gradlint.loop_facts import LoopFacts
from gradlint.observation import MODEL, Observation
from gradlint.relabel import only, relabeled, without_label
from gradlint.trace import Trace
from gradlint.watching.cadence import FIRST_LIGHT
from gradlint.watching.clips import clipped_by_hand
from gradlint.watching.facts_of import schedulers_of, together
from gradlint.watching.loop import Loop
from gradlint.watching.optimizers import Known
from gradlint.watching.raised import is_of_device


def assemble(loop: Loop, command: str, *, ended: str = "") -> Trace:
    """Return what `loop` gave so far; it may go on.

    Args:
        loop: The loop.
        command: "run" or "watch".
        ended: How it ended; see `LoopFacts`.
    """
    trace = loop.ranks.applied(gathered(loop, command, ended=ended))
    return _named(_with_clipping(trace), loop)


def gathered(loop: Loop, command: str, *, ended: str = "") -> Trace:
    """Return what this process alone saw, paths with their models' labels; see `assemble`."""
    observer = loop.observer
    optimizers = [_facts_now(known, loop) for known in loop.optimizers if known.facts is not None]
    series, streams = _series(loop)
    facts = Facts(
        command=command,
        inputs=loop.data.inputs,
        targets=loop.data.targets,
        outputs=loop.data.outputs,
        losses=loop.data.losses,
        optimizer=together(optimizers),
        pretrained=loop.loaded or any(k.had_state for k in loop.optimizers),
        events=() if loop.raised is None or ended != "exception" else (loop.raised,),
        batch_size=loop.data.batch_size,
        probes=loop.data.probes,
        later=tuple(loop.data.later.graphs),
        loop=_loop_facts(loop, streams, ended),
    )
    light = [o for row in loop.records.rows for o in row.observations()]
    trace = observer.trace(facts)
    at_end = list(observer.window(max(loop.steps, 1)))
    return trace.but(
        observations=sorted([*trace.observations, *light, *series, *at_end], key=lambda o: o.step),
        parameters=_parameters(loop),
    )


def _with_clipping(trace: Trace) -> Trace:
    """Add what norms tell of clipping, where no call was seen."""
    loop = trace.facts.loop
    if loop is None or loop.clipping is not None:
        return trace
    before, after = (
        {o.step: o.value for o in trace.of(name).training}
        for name in ("backward_gradient_norm", "total_gradient_norm")
    )
    clipping = clipped_by_hand(before, after)
    return trace.but(facts=replace(trace.facts, loop=replace(loop, clipping=clipping)))


def _facts_now(known: Known, loop: Loop) -> OptimizerFacts:
    """Return an optimizer's facts; models that were found since may own what was foreign."""
    facts = known.facts or OptimizerFacts(known.kind)
    if known.optimizer() is None:  # gone with the function that made it
        return facts
    own = {id(p) for p in loop.observer.parameters.values()}
    foreign = sum(id(p) not in own for p in known.parameters())
    return replace(facts, foreign=min(facts.foreign, foreign))


def _series(loop: Loop) -> tuple[list[Observation], int]:
    """Return the points of every step, and how many independent losses there are."""
    followed = _followed(loop)
    own = {id(first): first for first in followed.values()}
    streams = max(1, len(own))
    places = {known.site: first.site for known, first in followed.items()}
    first = _first_phase(followed, loop.steps)
    found: list[Observation] = []
    for (metric, site), points in loop.records.series.items():
        place = site if metric != "loss" else places.get(site) or site
        if metric != "loss" or streams > 1:
            name = "stream_loss" if metric == "loss" else metric
            found += [Observation(name, place, step, value) for step, value in points]
        if metric == "loss" and (streams == 1 or (first is not None and place == first.site)):
            found += [Observation("loss", MODEL, step, value) for step, value in points]
    found.sort(key=lambda o: o.step)
    start = next((o for o in found if o.metric == "loss"), None)
    return found if start is None else [replace(start, step=0), *found], streams


def _followed(loop: Loop) -> dict[Known, Known]:
    """Return, for each optimizer with a loss of its own, the first of those it took turns from.

    One that trains on what another, which is done, has trained goes on with its loss.
    """
    followed: dict[Known, Known] = {}
    for known in sorted(loop.optimizers.stepped, key=lambda k: k.first_at):
        if known.shares:
            continue
        earlier = [k for k in followed if k.last_at < known.first_at and k.paths & known.paths]
        same = bool(earlier) and loop.cast.goes_on(earlier[-1], known)
        followed[known] = followed[earlier[-1]] if same else known
    return followed


def _first_phase(followed: Mapping[Known, Known], steps: int) -> Known | None:
    """Return the first of the optimizers' losses, if none began before the one before it ended.

    A few steps of many tell nothing: copies of a model are adapted to task after task.
    """
    spans: dict[Known, tuple[int, int]] = {}
    for known, first in followed.items():
        start, end = spans.get(first, (known.first_at, known.last_at))
        spans[first] = min(start, known.first_at), max(end, known.last_at)
    ordered = sorted(spans.items(), key=lambda item: item[1])
    apart = all(a[1][1] < b[1][0] for a, b in pairwise(ordered))
    if not ordered or not apart:
        return None
    first, (start, end) = ordered[0]
    return first if end - start + 1 >= min(FIRST_LIGHT, steps / 2) else None


def _loop_facts(loop: Loop, streams: int, ended: str) -> LoopFacts:
    holders = loop.holders()
    forwards = loop.forwards / loop.looked_at_backwards if loop.looked_at_backwards else 0.0
    unclaimed = bool(loop.gradients.fed) and not (loop.steps or holders)
    return LoopFacts(
        steps=loop.steps,
        backwards=loop.backwards,
        observed=loop.looked_at,
        forwards=forwards,
        by_hand=loop.by_hand.count > 0,
        optimizers=tuple(k.kind for k in loop.optimizers if k.steps),
        idle_optimizers=tuple(
            k.kind for k in loop.optimizers if not k.steps and (k.found or k in holders)
        ),
        alike=_alike(loop.optimizers.stepped),
        detached=loop.data.links.detached,
        quiet=loop.data.links.ran_quietly,
        schedulers=tuple(_schedulers(loop)),
        strangers=loop.strangers.facts() if unclaimed else (),
        originals=() if loop.looking else loop.originals.facts(loop.observer, loop.gradients.fed),
        empty=loop.empty_steps.facts(loop.optimizers.stepped),
        term=loop.data.terms.facts(),
        streams=streams,
        summed=loop.series.summed or 1,
        compiled=loop.compiled.found(loop),
        blind=loop.compiled.blind(loop),
        scale_unknown=loop.scale_unknown,
        discarded=loop.discarded.facts(),
        clipping=loop.clips.facts(),
        scaler=loop.scaling.facts(),
        ended=ended,
        fault=_fault(loop.failure),
        own_seconds=loop.own,
        loop_seconds=loop.seconds,
    )


def _fault(failure: BaseException | None) -> str:
    """Return a fault of our own as text; what a device raised is the loop's."""
    if failure is None or is_of_device(failure):
        return ""
    return f"{type(failure).__name__}: {failure}"


def _alike(stepped: Sequence[Known]) -> int:
    """Return how many optimizers hold what another one holds, while both of them step."""
    return sum(
        any(
            other is not known
            and known.paths
            and other.paths == known.paths
            and other.first_at < known.last_at
            and known.first_at < other.last_at
            for other in stepped
        )
        for known in stepped
    )


def _schedulers(loop: Loop) -> dict[str, None]:
    """Return the schedulers seen; looking for them takes long, so not while the loop runs."""
    return loop.schedulers | ({} if loop.looking else schedulers_of(loop.optimizers.stepped))


def _parameters(loop: Loop) -> dict[str, ParameterFacts]:
    """Return the parameters, with whether any optimizer holds them."""
    observer = loop.observer
    known = [k for k in loop.optimizers if k.steps or k in loop.holders()]
    held = {id(p) for k in known for p in k.parameters()}
    found: dict[str, ParameterFacts] = {}
    for path, facts in observer.facts_of_parameters.items():
        parameter = observer.parameters.get(path)
        facts = replace(
            facts,
            since=loop.replaced.get(path, 0),
            unloaded=path in loop.unloaded.paths,
            loaded=path in loop.unloaded.given,
        )
        if known and parameter is not None:
            # Those of a function are gone with it: what they held is known from their first step.
            facts = replace(facts, in_optimizer=id(parameter) in held or loop.held.get(path, False))
        elif known:
            facts = replace(facts, in_optimizer=loop.held.get(path))
        found[path] = facts
    return found


def _named(trace: Trace, loop: Loop) -> Trace:
    """Leave out models that nothing trains; a lone one needs no label."""
    labels = {path.partition(".")[0] for path in trace.modules}
    trained = {
        facts.path.partition(".")[0]
        for facts in trace.parameters.values()
        if facts.in_optimizer or (facts.requires_grad and facts.path in loop.gradients.fed)
    }
    kept = trained or labels
    if kept != labels:
        trace = only(trace, kept)
    if len(kept) == 1:
        return relabeled(trace, without_label(next(iter(kept))))
    root = ModuleFacts("", "models", leaf=False, calls=0)
    return trace.but(modules={"": root, **trace.modules})
