"""Relabel: the same trace with other paths, or without some."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from gradlint.facts import Facts, LossFacts
from gradlint.graph import Graph, Operation
from gradlint.observation import Site
from gradlint.trace import Trace

Rename = Callable[[str], str]


def without_label(label: str) -> Rename:
    """Return a function that takes the leading `label` off a path."""

    def rename(path: str) -> str:
        if path == label:
            return ""
        if path.startswith(f"{label}:"):
            return path[len(label) :]
        return path.removeprefix(f"{label}.")

    return rename


def relabeled(trace: Trace, rename: Rename) -> Trace:
    """Return `trace` with every path renamed; sites with an empty path stay."""
    sites: dict[Site, Site] = {}

    def moved(site: Site) -> Site:
        if site not in sites:
            sites[site] = replace(site, path=rename(site.path), module=rename(site.module))
        return sites[site]

    return Trace(
        [replace(o, site=moved(o.site)) for o in trace.observations],
        modules={
            rename(path): replace(
                facts, path=rename(path), parameters=tuple(map(rename, facts.parameters))
            )
            for path, facts in trace.modules.items()
        },
        parameters={
            rename(path): replace(
                facts,
                path=rename(path),
                module=rename(facts.module),
                aliases=tuple(map(rename, facts.aliases)),
            )
            for path, facts in trace.parameters.items()
        },
        graph=Graph(tuple(_operation(op, rename) for op in trace.graph)),
        facts=_facts(trace.facts, rename, moved),
    )


def _operation(op: Operation, rename: Rename) -> Operation:
    return replace(
        op,
        module=None if op.module is None else rename(op.module),
        parameters=tuple(map(rename, op.parameters)),
        site=rename(op.site),
    )


def _facts(facts: Facts, rename: Rename, moved: Callable[[Site], Site]) -> Facts:
    optimizer = facts.optimizer
    if optimizer is not None:
        optimizer = replace(optimizer, duplicates=tuple(map(rename, optimizer.duplicates)))
    loop = facts.loop
    if loop is not None:
        loop = replace(
            loop,
            compiled=tuple(map(rename, loop.compiled)),
            blind=tuple(map(rename, loop.blind)),
            detached=tuple(
                replace(d, source=rename(d.source), reader=rename(d.reader)) for d in loop.detached
            ),
            quiet=tuple(replace(q, path=rename(q.path)) for q in loop.quiet),
        )
        if loop.ranks is not None:
            diverged = tuple(map(rename, loop.ranks.diverged))
            loop = replace(loop, ranks=replace(loop.ranks, diverged=diverged))
    return replace(
        facts,
        losses=_losses(facts.losses, rename),
        later=tuple(
            replace(
                seen,
                operations=tuple(_operation(op, rename) for op in seen.operations),
                losses=_losses(seen.losses, rename),
            )
            for seen in facts.later
        ),
        optimizer=optimizer,
        loop=loop,
        events=tuple(
            replace(e, module=None if e.module is None else rename(e.module)) for e in facts.events
        ),
        flows=tuple(
            replace(
                flow,
                site=moved(flow.site),
                layers={rename(path): share for path, share in flow.layers.items()},
            )
            for flow in facts.flows
        ),
    )


def _losses(losses: Iterable[LossFacts], rename: Rename) -> tuple[LossFacts, ...]:
    return tuple(
        replace(seen, before=tuple(_operation(op, rename) for op in seen.before)) for seen in losses
    )


def only(trace: Trace, labels: Collection[str]) -> Trace:
    """Return `trace` without the models whose label is not in `labels`."""

    def kept(path: str) -> bool:
        return not path or path.partition(":")[0].partition(".")[0] in labels

    return trace.but(
        observations=[o for o in trace.observations if kept(o.site.path)],
        modules={path: facts for path, facts in trace.modules.items() if kept(path)},
        parameters={path: facts for path, facts in trace.parameters.items() if kept(path)},
        facts=replace(
            trace.facts,
            flows=tuple(f for f in trace.facts.flows if kept(f.site.path)),
            later=tuple(
                seen
                for seen in trace.facts.later
                if any(op.module and kept(op.module) for op in seen.operations)
            ),
            events=tuple(e for e in trace.facts.events if e.module is None or kept(e.module)),
        ),
    )
