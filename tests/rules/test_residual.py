"""Stacks of residual blocks, and what stands around their adds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradlint.graph import Graph, Operation
from gradlint.rules._residual import normalizes_sums, scales_residual, stacks
from gradlint.testing import trace_of
from gradlint.trace import ModuleFacts, Trace


def blocks(*adds: str | None, prefix: str = "blocks", **changes: Any) -> Trace:
    """A trunk that each add reads, and blocks of one class around the adds' modules."""
    operations = [Operation(0, "linear", "", "stem")]
    for module in adds:
        last = operations[-1].id
        operations.append(Operation(last + 1, "linear", "", module, (last,)))
        operations.append(Operation(last + 2, "add", "", module, (last, last + 1), **changes))
    return trace_of(
        operations=operations,
        modules=[
            ModuleFacts(f"{prefix}.{i}", "Block", i, calls=1, leaf=False) for i in range(len(adds))
        ],
    )


def test_blocks_of_one_class_that_add_are_a_stack_in_their_order() -> None:
    ((found, adds),) = stacks(blocks("blocks.0", "blocks.1.inner", "blocks.2"))

    assert [block.path for block in found] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [len(inside) for inside in adds] == [1, 1, 1]


def test_every_add_belongs_to_its_own_block() -> None:
    """Not to one whose path begins alike, nor to none."""
    trace = blocks("blocks.0", "blocks.10", "blocks.0")

    assert list(stacks(trace)) == []
    assert list(stacks(blocks("blocks.0", None))) == []


def test_the_first_block_may_add_to_the_data() -> None:
    ((_, adds),) = stacks(blocks("elsewhere", "blocks.1", "blocks.2"))

    assert [len(inside) for inside in adds] == [0, 1, 1]


def test_other_additions_are_no_residuals() -> None:
    paths = ("blocks.0", "blocks.1")

    assert list(stacks(blocks(*paths, in_loss=True))) == []
    assert list(stacks(blocks(*paths, attributes={"broadcast": True}))) == []
    assert list(stacks(blocks(*paths, prefix="other"))) == []


def around(before: str, after: str) -> tuple[Graph, Operation]:
    add = Operation(2, "add", "", "", (0, 1))
    operations = (
        Operation(0, "linear", "", ""),
        Operation(1, before, "", "", (0,)),
        add,
        Operation(3, "dropout", "", "", (2,)),
        Operation(4, after, "", "", (3,)),
    )
    return Graph(operations), add


def test_a_normalization_behind_every_sum_is_post_ln() -> None:
    for kind, expected in (("layer_norm", True), ("rms_norm", True), ("linear", False)):
        graph, add = around("linear", kind)
        assert normalizes_sums(graph, [add]) is expected
    assert not normalizes_sums(graph, [])


def test_a_constant_or_a_parameter_scales_one_side() -> None:
    for kind, expected in (("scale", True), ("parameter_mul", True), ("linear", False)):
        graph, add = around(kind, "linear")
        assert scales_residual(graph, [add]) is expected


def test_numbered_leaves_are_no_blocks() -> None:
    trace = blocks("blocks.0", "blocks.1")
    leaves = {path: replace(m, leaf=True) for path, m in trace.modules.items()}

    assert list(stacks(trace.but(modules=leaves))) == []
