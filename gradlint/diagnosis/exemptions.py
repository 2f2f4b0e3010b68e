"""Exemptions: named, provable reasons why something that looks sick is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gradlint.diagnosis import attention, proofs
from gradlint.finding import Finding
from gradlint.graph import Operation
from gradlint.trace import Trace

Proof = Callable[[Trace, Finding], str | None]


@dataclass(frozen=True, slots=True)
class Exemption:
    """A reason, the rules it silences, and its proof.

    `proof` returns the sentence shown to the reader ("bias before BatchNorm: its gradient
    cancels exactly"), or None where the reason does not hold.
    """

    name: str
    codes: frozenset[str]
    proof: Proof

    def covers(self, trace: Trace, finding: Finding) -> str | None:
        """Return why `finding` is none, or None if this exemption says nothing of it."""
        return self.proof(trace, finding) if finding.code in self.codes else None


EXEMPTIONS: list[Exemption] = []
"""All exemptions, in the order they are asked."""


def exemption(name: str, *codes: str) -> Callable[[Proof], Proof]:
    """Register the decorated proof as the exemption `name` for the rules `codes`."""

    def register(proof: Proof) -> Proof:
        EXEMPTIONS.append(Exemption(name, frozenset(codes), proof))
        return proof

    return register


_NORMALIZATIONS = {
    "batch_norm": "BatchNorm",
    "group_norm": "GroupNorm",
    "instance_norm": "InstanceNorm",
    "layer_norm": "LayerNorm",
    "rms_norm": "RMSNorm",
    "normalize": "normalize",
}
_SMALL_GRADIENT = ("GL303", "GL304", "GL402", "GL406", "GL502")
_START = ("GL102", "GL109", "GL301", "GL303", "GL304", "GL402")

LAYER_SCALE = 0.1
"""Learned scales start at 1e-6 to 0.1 where they are meant to hold a branch back.

Touvron et al. (2021), "Going deeper with image transformers" (CaiT), section 2.
"""


@exemption("frozen", "GL001", "GL102", "GL303", "GL304", "GL402", "GL406", "GL701", "GL702")
def frozen(trace: Trace, finding: Finding) -> str | None:
    """Parameters that require no gradient, or whose learning rate is zero."""
    paths = proofs.parameters_of(trace, finding)
    known = [trace.parameters[p] for p in paths if p in trace.parameters]
    if known and len(known) == len(paths) and not any(p.requires_grad for p in known):
        return "frozen: it requires no gradient, so it is not meant to learn"
    return None


@exemption("unused-module", "GL101", "GL102", "GL109", "GL111", "GL303", "GL304", "GL402", "GL406")
def unused_module(trace: Trace, finding: Finding) -> str | None:
    """Modules that forward does not call and whose parameters nothing reads."""
    paths = proofs.parameters_of(trace, finding)
    known = [trace.parameters[p] for p in paths if p in trace.parameters]
    module = trace.modules.get(finding.module or "")
    if not known or module is None or module.calls or not len(trace.graph):
        return None
    read = any(trace.graph.reading(p) for k in known for p in (k.path, *k.aliases))
    if read or any(p.gradient == "present" for p in known):
        return None
    return "unused module: forward does not call it, and nothing reads its parameters"


@exemption("bias-before-normalization", *_SMALL_GRADIENT)
def bias_before_normalization(trace: Trace, finding: Finding) -> str | None:
    """Biases that a normalization subtracts again: mean(z + b) = mean(z) + b."""
    path = finding.parameter
    if path is None or proofs.dimensions(trace, path) != 1:
        return None
    if any(_is_factor(op, path) for op in trace.graph.reading(path)):
        return None
    norms = proofs.centering(trace, path)
    if not norms:
        return None
    return f"bias before {_name(norms[0])}: its gradient cancels exactly"


@exemption("attention-key-bias", *_SMALL_GRADIENT)
def attention_key_bias(trace: Trace, finding: Finding) -> str | None:
    """Biases of keys: q·(k + b) adds the same to all scores of a query."""
    if finding.parameter is None or not attention.is_key_bias(trace, finding.parameter):
        return None
    return "bias of the attention keys: softmax ignores a constant, so its gradient is zero"


@exemption("attention-scores", "GL303")
def attention_scores(trace: Trace, finding: Finding) -> str | None:
    """Weights of queries, keys and routers, which act through a softmax alone.

    While all scores are about equal, so are the values they choose between on average, and
    next to no gradient passes the softmax.
    """
    paths = proofs.parameters_of(trace, finding)
    if not paths or not all(attention.feeds_only_scores(trace, path) for path in paths):
        return None
    if any(attention.is_key_bias(trace, path) for path in paths):
        return None  # `attention-key-bias` knows better
    return "scores of a softmax: their gradient is small until what they choose between differs"


@exemption("lora", *_START)
def lora(trace: Trace, finding: Finding) -> str | None:
    """LoRA's A, whose gradient is B's transpose times something, while B starts at zero."""
    paths = proofs.parameters_of(trace, finding)
    partners = {path: proofs.low_rank_partner(trace, path) for path in paths}
    if not paths or None in partners.values():
        return None
    if not all(proofs.gradient_zero_at_start(trace, path) for path in paths):
        return None
    partner = next(p for p in partners.values() if p is not None)
    moving = trace.of("gradient_norm").at(partner).values
    if not any(moving):  # B stands still too: A is dead for ever
        return None
    return f"low-rank adapter: no gradient while {partner} is zero, as it starts by design"


@exemption("zero-initialized-branch", *_START)
def zero_initialized_branch(trace: Trace, finding: Finding) -> str | None:
    """What lies behind a last layer that starts at zero: no gradient until that has moved."""
    paths = proofs.parameters_of(trace, finding)
    gates = proofs.zero_gates(trace)
    if not paths or not gates:
        return None
    met: dict[int, Operation] = {}
    for path in paths:
        if proofs.low_rank_partner(trace, path):
            return None  # an adapter: `lora` speaks of it
        behind = proofs.reaches_loss_only_through(trace, path, gates)
        if not behind or not proofs.gradient_zero_at_start(trace, path):
            return None
        if not proofs.gets_going(trace, path, behind):
            return None
        met.update({op.id: op for op in behind})
    name = next(op.module or op.parameters[0] for op in met.values())
    return f"zero-initialized branch: no gradient until {name}, which starts at zero, has moved"


@exemption("layer-scale", "GL301", "GL303", "GL304", "GL402")
def layer_scale(trace: Trace, finding: Finding) -> str | None:
    """Branches held back by a small learned scale, which grows as they get useful."""
    paths = proofs.parameters_of(trace, finding)
    scales = proofs.small_scales(trace, LAYER_SCALE)
    if not paths or not scales:
        return None
    behind = [proofs.reaches_loss_only_through(trace, path, scales) for path in paths]
    if not all(behind):
        return None
    parameter = behind[0][0].parameters[0]
    largest = proofs.at_start(trace, "weight_abs_max", parameter)
    return f"layer scale: {parameter} holds the branch back, starting at {largest:.1g}"


@exemption("unused-embedding-rows", "GL303", "GL304", "GL402", "GL406")
def unused_embedding_rows(trace: Trace, finding: Finding) -> str | None:
    """Embedding tables, of which a batch moves only the rows it holds."""
    path = finding.parameter
    if path is None:
        return None
    readers = trace.graph.reading(path)
    if not readers or any(op.kind != "embedding" for op in readers):
        return None
    return "embedding: rows that the batch does not hold have no gradient"


@exemption("scale-invariant-weight", "GL101", "GL303", "GL504")
def scale_invariant_weight(trace: Trace, finding: Finding) -> str | None:
    """Weights right in front of a normalization: N(cW) = N(W), so their size is free.

    van Laarhoven (2017), "L2 regularization versus batch and weight normalization".
    """
    path = finding.parameter
    if path is None or proofs.dimensions(trace, path) < 2:
        return None
    norms = proofs.normalizing(trace, path)
    if not norms:
        return None
    return f"weight before {_name(norms[0])}: the output does not depend on its size"


def _is_factor(op: Operation, path: str) -> bool:
    """Whether a normalization or a product reads `path`, rather than a sum."""
    return op.kind in _NORMALIZATIONS or op.kind == "parameter_mul"


def _name(op: Operation) -> str:
    return _NORMALIZATIONS.get(op.kind, op.kind)
