"""Hypothesis strategies for traces: every field of every record, by its type."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from gradlint.graph import Graph, Operation
from gradlint.observation import MODEL, Observation, Site
from gradlint.trace import Facts, GraphFacts, ModuleFacts, ParameterFacts, Trace

WORDS = st.one_of(
    st.sampled_from(["", "fc1", "layers.0", "nan", "inf", "!tuple"]),
    st.text(st.characters(), max_size=6),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(st.integers(), max_size=3),
        st.dictionaries(WORDS, inner, max_size=3),
        st.dictionaries(st.integers(), inner, max_size=2),
    ),
    max_leaves=6,
)


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    simple = {int: st.integers(), float: st.floats(), str: WORDS, bool: st.booleans()}
    if kind is Any:
        return ANYTHING
    if kind in simple:
        return simple[kind]
    if kind is GraphFacts:
        return records(kind, operations=graphs().map(lambda graph: graph.operations))
    if dataclasses.is_dataclass(kind):
        return records(kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(st.none(), *(of_type(p) for p in parts if p is not type(None)))
    if origin is tuple:
        return st.lists(of_type(parts[0]), max_size=3).map(tuple)
    if origin is frozenset:
        return st.frozensets(of_type(parts[0]), max_size=3)
    if origin is Mapping:
        return st.dictionaries(WORDS, of_type(parts[1]), max_size=3)
    raise TypeError(f"no strategy for {kind!r}")


def records(kind: Any, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Instances of a dataclass with every field drawn, or left at its default."""
    hints = get_type_hints(kind)
    required = {
        f.name: of_type(hints[f.name])
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    all_of = {f.name: of_type(hints[f.name]) for f in dataclasses.fields(kind)}
    return st.one_of(
        st.builds(kind, **(required | given)),
        st.builds(kind, **(all_of | given)),
    )


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs whose operations read only earlier ones."""
    count = draw(st.integers(0, 3))
    operations = []
    for i in range(count):
        inputs = st.lists(st.integers(0, i - 1), max_size=2).map(tuple) if i else st.just(())
        operations.append(draw(records(Operation, id=st.just(i), inputs=inputs)))
    return Graph(tuple(operations))


SITES = st.one_of(
    st.just(MODEL),
    st.sampled_from([Site("fc1", "Linear", 0, "fc1"), Site("fc1:relu", "relu", 1, "fc1")]),
    records(Site),
)
OBSERVATIONS = st.builds(
    Observation,
    metric=st.sampled_from(["loss", "activation_std", "gradient_norm"]),
    site=SITES,
    step=st.integers(0, 5),
    value=st.floats(),
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Traces of any kind, observations in any order."""
    modules = draw(st.lists(records(ModuleFacts), max_size=2))
    parameters = draw(st.lists(records(ParameterFacts), max_size=2))
    return Trace(
        draw(st.lists(OBSERVATIONS, max_size=12)),
        modules={facts.path: facts for facts in modules},
        parameters={facts.path: facts for facts in parameters},
        graph=draw(graphs()),
        facts=draw(records(Facts)),
    )


def contents(trace: Trace) -> tuple[Any, ...]:
    """Everything a trace holds."""
    return (
        trace.observations,
        dict(trace.modules),
        dict(trace.parameters),
        trace.graph,
        trace.facts,
    )


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal in value and type, NaN to NaN, in the order they hold."""
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        names = [f.name for f in dataclasses.fields(one)]
        return all(alike(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or (one == other and math.copysign(1, one) == math.copysign(1, other))
    if isinstance(one, dict):
        return alike(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)
