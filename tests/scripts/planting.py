"""What a planted fault is: a script of the gallery with some of its text replaced.

The codes beside a fault are those accepted for the first finding. They were written down
before any of the faulty scripts was run, from what is the one cause; a second code stands
where two rules say the same thing in other words. `because` tells what is not obvious.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent

GALLERY: tuple[str, ...] = (
    "actor_critic",
    "amp_accumulation",
    "autoencoder",
    "char_rnn_classification",
    "dcgan",
    "diabetes_regression",
    "digits_cnn",
    "gcn",
    "gpt",
    "hf_trainer",
    "iris",
    "quickstart",
    "regression",
    "reinforce",
    "resnet_digits",
    "seq2seq_translation",
    "siamese_contrastive",
    "super_resolution",
    "time_sequence_prediction",
    "transfer_learning",
    "transformer_classification",
    "vae",
    "word_language_model",
)
"""The scripts nothing is wrong with."""


@dataclass(frozen=True)
class Fault:
    """A fault in a script: `edits` are (old text, new text), each found exactly once."""

    name: str
    script: str
    causes: frozenset[str]
    edits: tuple[tuple[str, str], ...]
    because: str = ""
    missed: str = ""
    """Why gradlint does not name this fault yet; empty where it does."""

    @property
    def id(self) -> str:
        """Return the name the fault has in tests and tables."""
        return f"{self.script}-{self.name}"

    def planted(self) -> str:
        """Return the script's text with the fault in it."""
        text = original(self.script)
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"{self.id}: {text.count(old)} times in the script: {old!r}")
            text = text.replace(old, new)
        return text


def original(script: str) -> str:
    """Return the text of the script of that name."""
    return (FOLDER / f"{script}.py").read_text(encoding="utf-8")


FAULTS: list[Fault] = []
"""All faults, by kind."""


def plant(
    name: str,
    causes: str,
    script: str,
    *edits: tuple[str, str],
    because: str = "",
    missed: str = "",
) -> None:
    """Add a fault; `causes` are codes separated by spaces."""
    FAULTS.append(Fault(name, script, frozenset(causes.split()), edits, because, missed))


def lines(indent: int, *text: str) -> str:
    """Return lines of code, indented, each with its line end."""
    return "".join(" " * indent + line + "\n" for line in text)
