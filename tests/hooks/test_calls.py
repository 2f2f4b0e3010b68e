"""Which module ran when."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from gradlint.hooks.calls import Call, Calls, sequence_number


def node(calls: Calls) -> int:
    """Make one autograd node; return its number."""
    x = torch.ones(1, requires_grad=True) * 2
    return x.grad_fn._sequence_nr()


def test_a_node_belongs_to_the_innermost_call() -> None:
    calls = Calls()
    calls.enter("")
    first = node(calls)
    calls.enter("child")
    second = node(calls)
    calls.leave("child")
    third = node(calls)
    calls.leave("")

    owners = calls.innermost(sorted([first, second, third]))

    assert [owners[n].path for n in (first, second, third)] == ["", "child", ""]


def test_a_container_whose_last_child_made_every_node_owns_none_of_them() -> None:
    calls = Calls()
    for path in ("", "body", "body.0"):
        calls.enter(path)
    number = node(calls)
    for path in ("body.0", "body", ""):
        calls.leave(path)

    assert calls.innermost([number])[number].path == "body.0"


def test_calls_of_one_module_are_counted() -> None:
    calls = Calls()
    numbers = []
    for expected in range(3):
        calls.enter("cell")
        numbers.append(node(calls))
        assert calls.leave("cell") == expected

    assert calls.counts == {"cell": 3}
    assert [calls.innermost(numbers)[n].index for n in numbers] == [0, 1, 2]


def test_a_module_that_raised_is_closed_by_its_caller() -> None:
    calls = Calls()
    calls.enter("")
    calls.enter("raises")
    assert calls.running == "raises"
    calls.leave("")

    assert calls.running is None
    assert [call.path for call in calls.finished] == [""]


def test_leaving_what_was_never_entered_does_nothing() -> None:
    calls = Calls()

    assert calls.leave("stranger") == 0
    assert calls.finished == []


def test_order_is_that_of_the_first_end() -> None:
    calls = Calls()
    for path in ("a", "b", "a"):
        calls.enter(path)
        calls.leave(path)

    assert calls.order == {"a": 0, "b": 1}


def test_a_node_outside_every_call_has_no_owner() -> None:
    calls = Calls()
    calls.finished.append(Call("late", 10, 20))

    assert calls.innermost([5, 10, 19, 20]) == {
        10: calls.finished[0], 19: calls.finished[0],
    }  # fmt: skip


@pytest.mark.parametrize(
    "packing",
    [
        pytest.param(lambda: saved_tensors_hooks(lambda t: t, lambda t: t), id="hooks"),
        pytest.param(save_on_cpu, id="save-on-cpu"),
    ],
)
def test_nodes_under_somebodys_hooks_are_known(packing: object) -> None:
    calls = Calls()
    with calls.noting_packed():
        before = node(calls)
        with packing():
            inside = node(calls)
        after = node(calls)

    assert [calls.is_packed(n) for n in (before, inside, after)] == [False, True, False]


def test_nodes_of_a_checkpoint_are_known() -> None:
    calls = Calls()
    layer = nn.Linear(2, 2)
    kept: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        kept.append(layer(x))
        return kept[-1].tanh()

    with calls.noting_packed():
        checkpoint(run, torch.ones(1, 2), use_reentrant=False)
        after = node(calls)

    assert calls.is_packed(kept[0].grad_fn._sequence_nr())
    assert not calls.is_packed(after)


def test_torchs_own_methods_are_put_back() -> None:
    enter, leave = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__

    def interrupted() -> None:
        assert saved_tensors_hooks.__enter__ is not enter
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Calls().noting_packed():
        interrupted()

    assert saved_tensors_hooks.__enter__ is enter
    assert saved_tensors_hooks.__exit__ is leave


def test_numbers_grow_with_nodes_alone() -> None:
    before = sequence_number()
    torch.ones(2) * 2

    assert sequence_number() == before
    assert node(Calls()) == before
    assert sequence_number() == before + 1
