"""What is known of single cases: those that taught a rule, and those still judged wrongly."""

from __future__ import annotations

MOVED: frozenset[str] = frozenset()
"""Sealed cases that taught a rule, and count as tuning since."""

SKIPPED = frozenset({
    "additive-mask-of-minus-infinity", "mapping-for-a-batch", "vae-own-loss-from-forward",
    "echo-state-network-fixed-reservoir", "elman-rnn", "text-cnn", "warm-up-from-zero",
})  # fmt: skip
"""Recipes of the zoo that the plain loop cannot train as it is: three whose batches or losses
are read by a convention of `check`, three whose loss does not fall for certain in 40 steps, one
whose schedule nobody steps in this loop, so that its learning rate stays zero."""

WHY: dict[str, dict[str, str]] = {}
"""Why a case is still judged wrongly, in one line, by mode; "" stands for every mode."""
