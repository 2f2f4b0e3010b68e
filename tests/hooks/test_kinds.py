"""Names of autograd nodes to kinds."""

from __future__ import annotations

import pytest

from gradlint.graph import ACTIVATIONS, LOSSES, NORMALIZATIONS, POOLS, SHAPES, SOFTMAXES, WEIGHTED
from gradlint.hooks.kinds import KINDS, base_name, is_custom, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ReluBackward0", "relu"), ("AddmmBackward0", "addmm"), ("MmBackward0", "addmm"),
        ("ConvolutionBackward0", "conv"), ("NativeLayerNormBackward0", "layer_norm"),
        ("CudnnBatchNormBackward0", "batch_norm"), ("MkldnnRnnLayerBackward0", "rnn"),
        ("CudnnRnnBackward0", "rnn"), ("MaxPool2DWithIndicesBackward0", "max_pool"),
        ("ScaledDotProductFlashAttentionForCpuBackward0", "attention"),
        ("torch::autograd::CopyBackwards", "cast"), ("torch::autograd::CopySlices", "clone"),
        ("NllLossBackward0", "nll"), ("MulBackward1", "mul"), ("ExpBackward0", "exp"),
        ("Log1PBackward0", "log1_p"), ("LinalgVectorNormBackward0", "linalg_vector_norm"),
        ("MyFunctionBackward", "custom"), ("Backward", "custom"),
    ],
)  # fmt: skip
def test_a_node_has_a_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_builtin_ends_in_a_number_and_a_function_of_the_users_does_not() -> None:
    assert not is_custom("SigmoidBackward0")
    assert not is_custom("torch::autograd::AccumulateGrad")
    assert is_custom("SigmoidBackward")
    assert is_custom("CheckpointFunctionBackward")


def test_the_base_name_is_the_operations() -> None:
    assert base_name("AddmmBackward0") == "Addmm"
    assert base_name("torch::autograd::CopyBackwards") == "CopyBackwards"
    assert base_name("torch::autograd::CopySlices") == "CopySlices"


def test_kinds_are_those_rules_speak_of() -> None:
    known = ACTIVATIONS | NORMALIZATIONS | WEIGHTED | SOFTMAXES | LOSSES | SHAPES | POOLS
    others = {"addmm", "clamp", "attention", "dropout", "add", "sub", "mul", "div", "weight_norm"}

    assert set(KINDS.values()) <= known | others
