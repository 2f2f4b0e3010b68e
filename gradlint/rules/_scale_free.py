"""What the class of an optimizer tells about the scale of its updates. No rule here."""

from __future__ import annotations

from gradlint.trace import OptimizerFacts

SCALE_FREE = (
    "adam",
    "adagrad",
    "adadelta",
    "adafactor",
    "adabelief",
    "rmsprop",
    "rprop",
    "lion",
    "lamb",
    "lars",
    "muon",
    "shampoo",
    "soap",
    "sophia",
    "signsgd",
    "novograd",
    "prodigy",
)
"""Parts of the names of optimizers that divide the gradient's scale out of the update."""


def divides_scale_out(optimizer: OptimizerFacts) -> bool:
    """Whether the optimizer's update is about as large for a small gradient as for a large one."""
    name = optimizer.kind.lower()
    return any(part in name for part in SCALE_FREE)
