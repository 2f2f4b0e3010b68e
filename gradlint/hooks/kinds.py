"""Autograd node names to the kinds of operation that rules speak of."""

from __future__ import annotations

import re

_BY_NAME = {
    "linear": "Linear",
    "addmm": "Addmm Mm Bmm Baddbmm Addbmm Mv Addmv Dot Matmul Einsum ScaledMm",
    "conv": "Convolution ConvolutionOverrideable MkldnnConvolution CudnnConvolution "
    "ThnnConv2D SlowConv3D SlowConvDilated2D ConvDepthwise2D ConvDepthwise3D "
    "MiopenConvolution ConvTbc",
    "conv_transpose": "SlowConvTranspose2D SlowConvTranspose3D CudnnConvolutionTranspose",
    "rnn": "MkldnnRnnLayer CudnnRnn MiopenRnn ThnnFusedLstmCell ThnnFusedGruCell LstmMps",
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "prelu": "PreluKernel Prelu",
    "rrelu": "RreluWithNoise",
    "elu": "Elu",
    "gelu": "Gelu",
    "silu": "Silu",
    "mish": "Mish",
    "softplus": "Softplus",
    "hardswish": "Hardswish",
    "glu": "Glu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardtanh": "Hardtanh",
    "hardsigmoid": "Hardsigmoid",
    "logsigmoid": "LogSigmoid LogSigmoidForward",
    "clamp": "Clamp ClampMin ClampMax Threshold",
    "batch_norm": "NativeBatchNorm CudnnBatchNorm MiopenBatchNorm BatchNormWithUpdate "
    "NativeBatchNormLegit",
    "layer_norm": "NativeLayerNorm",
    "group_norm": "NativeGroupNorm",
    "rms_norm": "FusedRmsNorm RmsNorm",
    "softmax": "Softmax SafeSoftmax MaskedSoftmax",
    "log_softmax": "LogSoftmax",
    "attention": "ScaledDotProductFlashAttentionForCpu ScaledDotProductFlashAttention "
    "ScaledDotProductEfficientAttention ScaledDotProductCudnnAttention "
    "ScaledDotProductFusedAttentionOverrideable FlexAttention",
    "nll": "NllLoss NllLoss2D NllLossNd",
    "mse": "MseLoss",
    "smooth_l1": "SmoothL1Loss",
    "huber": "HuberLoss",
    "bce": "BinaryCrossEntropy",
    "bce_with_logits": "BinaryCrossEntropyWithLogits",
    "ctc": "CtcLoss CudnnCtcLoss",
    "kl_div": "KlDiv",
    "soft_margin": "SoftMarginLoss MultiMarginLoss MultilabelMarginLoss",
    "view": "View UnsafeView ReshapeAlias Reshape Alias AsStrided Unfold PixelShuffle "
    "PixelUnshuffle ChannelShuffle Im2Col Col2Im ViewAsComplex ViewAsReal ViewDtype",
    "transpose": "Transpose T Permute Movedim Flip Roll Swapaxes",
    "squeeze": "Squeeze Unsqueeze",
    "expand": "Expand Repeat RepeatInterleave",
    "cast": "ToCopy To TypeAs CopyBackwards Copy",
    "clone": "Clone Contiguous CopySlices Lift LiftFresh",
    "slice": "Slice Select Narrow Diagonal Tril Triu MaskedSelect Unbind",
    "index": "Index IndexSelect Gather Take TakeAlongDim Sort Topk IndexPut IndexAdd Scatter "
    "ScatterAdd IndexCopy ScatterReduce SliceScatter SelectScatter IndexFill",
    "concat": "Cat Stack",
    "split": "Split SplitWithSizes Chunk TensorSplit",
    "mask": "MaskedFill MaskedScatter",
    "max_pool": "MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D "
    "MaxPool1D MaxPool2D FractionalMaxPool2D MkldnnMaxPool2D",
    "avg_pool": "AvgPool2D AvgPool3D AvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D "
    "AdaptiveAvgPool1D",
    "upsample": "UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleBilinear2D "
    "UpsampleLinear1D UpsampleTrilinear3D UpsampleBicubic2D UpsampleNearestExact2D "
    "GridSampler2D GridSampler3D",
    "pad": "ConstantPadNd ReflectionPad1D ReflectionPad2D ReplicationPad1D ReplicationPad2D",
    "mean": "Mean Nanmean SegmentReduce",
    "sum": "Sum Nansum Cumsum",
    "amax": "Amax Amin Max Min",
    "embedding": "Embedding EmbeddingBag EmbeddingRenorm",
    "dropout": "NativeDropout FusedDropout",
    "add": "Add Addcmul",
    "sub": "Sub Rsub",
    "mul": "Mul",
    "div": "Div",
    "weight_norm": "WeightNormInterface",
}

_PASSING = frozenset({"_DDPSinkBackward", "RegisterPostBackwardFunctionBackward"})
"""Functions by which data parallelism is told of a backward: what enters comes out."""

KINDS = {name: kind for kind, names in _BY_NAME.items() for name in names.split()}


_BUILTIN = re.compile(r"^(?:torch::autograd::)?(?P<base>\w+?)(?:Backward\d+|Backwards?)?$")


def base_name(name: str) -> str:
    """Return the operation of an autograd node: ``AddmmBackward0`` gives ``Addmm``."""
    if name == "torch::autograd::CopyBackwards":
        return "CopyBackwards"
    match = _BUILTIN.match(name)
    return match.group("base") if match else name


def is_custom(name: str) -> bool:
    """Whether the node of this name belongs to a Python `autograd.Function`."""
    return not name.startswith("torch::") and re.search(r"Backward\d+$", name) is None


def kind_of(name: str) -> str:
    """Return the kind for an autograd node's name; snake case of it when unknown."""
    if name in _PASSING:
        return "clone"
    if is_custom(name):
        return "custom"
    base = base_name(name)
    known = KINDS.get(base)
    if known is not None:
        return known
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", base).lower()
