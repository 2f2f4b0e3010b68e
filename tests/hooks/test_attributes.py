"""What a node says of itself, and whose code a file is."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlint.hooks.attributes import attributes_of, is_users, shown, signed, user_line
from gradlint.hooks.kinds import kind_of
from gradlint.hooks.lines import with_lines


def attributes(function: Callable[[Tensor], Tensor]) -> dict[str, object]:
    node = function(torch.randn(2, 3, 4, requires_grad=True)).grad_fn
    return attributes_of(node, kind_of(node.name()))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.softmax(-1), {"dim": 2}), (lambda x: x.softmax(1), {"dim": 1}),
        (lambda x: x.log_softmax(-3), {"dim": 0}),
        (lambda x: x.mean((0, -1)), {"dims": (0, 2), "keepdim": False, "input_shape": (2, 3, 4)}),
        (lambda x: x.sum(1, keepdim=True), {"dims": (1,), "keepdim": True}),
        (lambda x: F.leaky_relu(x, 0.3), {"slope": pytest.approx(0.3)}),
        (lambda x: F.elu(x, 0.7), {"alpha": pytest.approx(0.7)}),
        (lambda x: F.hardtanh(x, -3, 2), {"min": -3.0, "max": 2.0}),
        (lambda x: x.clamp(-3, 2), {"min": -3, "max": 2}), (lambda x: x.clamp(min=0), {"min": 0}),
        (lambda x: x**3, {"exponent": 3}), (lambda x: x * 5, {"scalar": 5.0}),
        (lambda x: x / 4, {"scalar": 4.0}), (lambda x: x * x, {}),
        (lambda x: x.amax(-1), {"dims": (2,)}), (lambda x: x.logsumexp(-2), {"dims": (1,)}),
        (lambda x: x.std(-1, keepdim=True), {"dims": (2,), "keepdim": True}),
        (lambda x: F.layer_norm(x, (4,)), {"normalized_shape": (4,)}),
        (lambda x: F.batch_norm(x, None, None, training=True, eps=1e-3), {"eps": 1e-3}),
        (lambda x: F.mse_loss(x, x.detach(), reduction="sum"), {"reduction": "sum"}),
        (lambda x: F.mse_loss(x, x.detach(), reduction="none"), {"reduction": "none"}),
        (lambda x: x.reshape(6, 4), {"input_shape": (2, 3, 4)}),
    ],
)  # fmt: skip
def test_a_node_tells_its_numbers(
    function: Callable[[Tensor], Tensor], expected: dict[str, object]
) -> None:
    found = attributes(function)

    assert {key: found.get(key) for key in expected} == expected


def test_a_product_of_two_signals_has_no_scalar() -> None:
    assert "scalar" not in attributes(lambda x: x * x)
    assert "scalar" not in attributes(lambda x: x * torch.ones(4))


def test_attributes_are_plain_data() -> None:
    plain = (bool, int, float, str, tuple)
    for function in (torch.relu, lambda x: x.softmax(0), lambda x: x.max(), lambda x: x[0]):
        assert all(isinstance(value, plain) for value in attributes(function).values())


def test_reading_attributes_after_the_backward_is_quiet() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x.softmax(0)
    y.sum().backward()

    assert attributes_of(y.grad_fn, "softmax") == {"dim": 0}


def test_an_unsigned_number_is_read_as_the_negative_it_was() -> None:
    assert signed(2**64 - 1) == -1
    assert signed(2**64 - 100) == -100
    assert signed(3) == 3
    assert signed(-2) == -2


def test_this_file_is_the_users_and_torchs_are_not() -> None:
    assert is_users(__file__)
    assert not is_users(torch.__file__)
    assert not is_users(F.__file__)
    assert not is_users("<string>")
    assert not is_users(str(Path(sysconfig.get_path("stdlib")) / "json" / "__init__.py"))
    assert not is_users("/opt/elsewhere/site-packages/timm/layers.py")
    assert not is_users(str(Path(attributes_of.__code__.co_filename)))


def test_the_users_line_is_the_innermost_of_the_users_code() -> None:
    x = torch.ones(2, requires_grad=True)
    with with_lines():
        y = F.gelu(x)
    here = test_the_users_line_is_the_innermost_of_the_users_code.__code__.co_firstlineno

    source = user_line(y.grad_fn)

    assert source is not None
    assert source.line == here + 3
    assert Path(source.file).name == Path(__file__).name
    assert user_line(F.gelu(x).grad_fn) is None


def test_a_file_below_the_working_directory_is_shown_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert shown(str(tmp_path / "src" / "model.py")) == str(Path("src") / "model.py")
    assert shown("/elsewhere/model.py") == "/elsewhere/model.py"


def test_the_shape_of_data_that_multiplies_is_told() -> None:
    def factor(function: Callable[[Tensor], Tensor]) -> object:
        return attributes(function).get("factor_shape")

    assert factor(lambda x: x * torch.ones(5, 1, 1, 1)) == (5, 1, 1, 1)
    assert factor(lambda x: torch.ones(4) * x) == (4,)
    assert factor(lambda x: x / torch.ones(3, 4)) == (3, 4)
    assert factor(lambda x: x * 3) is None
    assert factor(lambda x: x * x.sum(0)) is None
    assert factor(lambda x: x + torch.ones(5, 1, 1, 1)) is None


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_data_that_multiplies_has_no_shape() -> None:
    rows = [torch.ones(2), torch.ones(3)]
    signal = torch.nested.nested_tensor(rows, requires_grad=True)
    node = (signal * torch.nested.nested_tensor(rows)).grad_fn

    assert "factor_shape" not in attributes_of(node, kind_of(node.name()))
