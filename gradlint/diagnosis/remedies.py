"""Remedies: cures that gradlint can apply by itself to a model of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradlint.finding import Finding
from gradlint.graph import SIGMOIDAL, WEIGHTED, Graph
from gradlint.init import graph_of, initialize_by_activation_
from gradlint.target.batches import Batch


@dataclass
class Patient:
    """What a remedy may change: gradlint's own model, batches and optimizer settings."""

    model: nn.Module
    batches: list[Batch]
    run: Callable[[nn.Module, Batch], Any]
    finding: Finding
    learning_rate_factor: float = 1.0

    @property
    def graph(self) -> Graph:
        """Operations of one forward of the model as it is now."""
        return graph_of(self.model, lambda: self.run(self.model, self.batches[0]))


@dataclass(frozen=True, slots=True)
class Remedy:
    """A cure: what it is for, how to say it, and how to do it.

    `apply` changes the patient and returns whether it found something to change.
    """

    name: str
    codes: frozenset[str]
    summary: str
    code: str
    apply: Callable[[Patient], bool]


REMEDIES: list[Remedy] = []
"""All remedies; for one finding they are tried in this order until one works."""


def _remedy(
    codes: str, summary: str, code: str
) -> Callable[[Callable[[Patient], bool]], Callable[[Patient], bool]]:
    def register(apply: Callable[[Patient], bool]) -> Callable[[Patient], bool]:
        name = apply.__name__.replace("_", "-")
        REMEDIES.append(Remedy(name, frozenset(codes.split()), summary, code, apply))
        return apply

    return register


@_remedy(
    "GL101 GL103 GL104 GL301 GL302",
    "initialize every layer for the activation that follows it",
    "gradlint.init.by_activation_(model, inputs)",
)
def initialize_by_activation(patient: Patient) -> bool:
    initialize_by_activation_(patient.model, patient.graph)
    return True


@_remedy(
    "GL301 GL110 GL202",
    "replace the sigmoidal activations between layers by GELU, initialized for it",
    "nn.GELU()  # instead of nn.Sigmoid() or nn.Tanh(), then gradlint.init.by_activation_",
)
def replace_sigmoidal(patient: Patient) -> bool:
    graph = patient.graph
    inner = {
        op.module
        for op in graph
        if op.kind in SIGMOIDAL
        and not op.attributes.get("gate")
        and any(o.kind in WEIGHTED for o in graph.descendants(op))
    }
    found = False
    for path in inner:
        if not path or not _is_plain_activation(patient.model, path):
            continue
        patient.model.set_submodule(path, nn.GELU())
        found = True
    if found:
        initialize_by_activation_(patient.model, patient.graph)
    return found


def _is_plain_activation(model: nn.Module, path: str) -> bool:
    return isinstance(model.get_submodule(path), (nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Softsign))


@_remedy(
    "GL102",
    "initialize the layer's units differently",
    "layer.reset_parameters()",
)
def reset_parameters(patient: Patient) -> bool:
    found = False
    for path in patient.finding.modules:
        reset = getattr(patient.model.get_submodule(path), "reset_parameters", None)
        if callable(reset):
            reset()
            found = True
    return found


@_remedy(
    "GL111 GL201",
    "start biases at zero",
    "nn.init.zeros_(layer.bias)",
)
def zero_biases(patient: Patient) -> bool:
    found = False
    with torch.no_grad():
        for module in patient.model.modules():
            bias = getattr(module, "bias", None)
            weighted = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
            if weighted and isinstance(bias, Tensor) and bool(bias.any()):
                bias.zero_()
                found = True
    return found


@_remedy(
    "GL601 GL603",
    "return what stands in front of the last activation",
    "nn.Identity()  # instead of the last activation",
)
def remove_last_activation(patient: Patient) -> bool:
    path = patient.finding.module
    if not path or next(patient.model.get_submodule(path).children(), None) is not None:
        return False
    module = patient.model.get_submodule(path)
    if next(module.parameters(), None) is not None:
        return False
    patient.model.set_submodule(path, nn.Identity())
    return True


@_remedy(
    "GL606",
    "give every input feature mean 0 and standard deviation 1",
    "inputs = (inputs - mean) / std",
)
def standardize_inputs(patient: Patient) -> bool:
    return _standardize(patient, "inputs")


@_remedy(
    "GL615",
    "give the targets mean 0 and standard deviation 1, and undo it on the predictions",
    "targets = (targets - mean) / std",
)
def standardize_targets(patient: Patient) -> bool:
    return _standardize(patient, "targets")


def _standardize(patient: Patient, which: str) -> bool:
    leaves = [getattr(batch, which) for batch in patient.batches]
    if not all(isinstance(t, Tensor) and t.is_floating_point() and t.ndim for t in leaves):
        return False
    together = torch.cat(leaves)
    axes = [0] if together.ndim <= 2 else [i for i in range(together.ndim) if i != 1]
    std, mean = torch.std_mean(together, dim=axes, keepdim=True)
    std = torch.where(std > 0, std, torch.ones_like(std))

    def scale(leaf: Any) -> Any:
        return (leaf - mean) / std if isinstance(leaf, Tensor) else leaf

    patient.batches[:] = [
        replace(batch, **{which: tree_map(scale, getattr(batch, which))})
        for batch in patient.batches
    ]
    return True


@_remedy(
    "GL709",
    "keep the layers in an nn.ModuleList",
    "self.layers = nn.ModuleList(layers)",
)
def register_modules(patient: Patient) -> bool:
    attribute = patient.finding.evidence.get("attribute")
    owner = patient.model.get_submodule(patient.finding.module or "")
    value = getattr(owner, str(attribute), None)
    if isinstance(value, (list, tuple)) and all(isinstance(m, nn.Module) for m in value):
        setattr(owner, str(attribute), nn.ModuleList(value))
        return True
    if isinstance(value, dict) and all(isinstance(m, nn.Module) for m in value.values()):
        setattr(owner, str(attribute), nn.ModuleDict({str(k): m for k, m in value.items()}))
        return True
    return False


@_remedy("GL401", "divide the learning rate by 10", "lr = lr / 10")
def lower_learning_rate(patient: Patient) -> bool:
    patient.learning_rate_factor = 0.1
    return True


@_remedy("GL401", "divide the learning rate by 100", "lr = lr / 100")
def lower_learning_rate_more(patient: Patient) -> bool:
    patient.learning_rate_factor = 0.01
    return True


@_remedy("GL401", "divide the learning rate by 1000", "lr = lr / 1000")
def lower_learning_rate_most(patient: Patient) -> bool:
    patient.learning_rate_factor = 0.001
    return True


__all__ = ["REMEDIES", "Patient", "Remedy"]
