"""Exemptions: named, provable reasons why something that looks sick is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gradlint.finding import Finding
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
