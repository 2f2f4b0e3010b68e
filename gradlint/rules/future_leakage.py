"""Causal models that look ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace

DECODER = "Set is_decoder=True in the model's configuration: it has no causal mask without."


@dataclass(frozen=True)
class FutureLeakage(Rule):
    """A model of the next token whose outputs depend on later tokens.

    ## What it does
    Where each target is the token that follows in the input, by itself or by the shift in the
    loss of a causal language model, or where the model's class is called one
    (``…ForCausalLM``, ``…LMHeadModel``), exchanges the second half of
    one sequence, after training, in evaluation mode. Flags the model if its outputs at the
    positions before change by more than `max_leak` of their size.

    ## Why is this bad?
    The target at position t is the token at t + 1, and the model reads it off its input. The
    loss falls far below what the text allows; when it generates, there is nothing to read.

    ## Example
    ```python
    class TinyForCausalLM(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(40, 32)
            self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
            self.head = nn.Linear(32, 40)

        def forward(self, ids):
            h = self.embed(ids)
            h = h + self.attend(h, h, h)[0]
            return self.head(h).transpose(1, 2)

    model = TinyForCausalLM()
    text = torch.randint(0, 40, (8, 17))
    batch = (text[:, :-1], text[:, 1:])
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class TinyForCausalLM(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(40, 32)
            self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
            self.head = nn.Linear(32, 40)

        def forward(self, ids):
            h = self.embed(ids)
            future = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
            h = h + self.attend(h, h, h, attn_mask=future)[0]
            return self.head(h).transpose(1, 2)

    model = TinyForCausalLM()
    text = torch.randint(0, 40, (8, 17))
    batch = (text[:, :-1], text[:, 1:])
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A class that is called causal and is not meant to be. Families that also come as masked
    language models (BERT and its kin) count as causal only if their configuration says
    ``is_decoder``, or if their labels are their tokens, which their loss shifts; those that
    see a prefix whole (XLNet, CPM-Ant) never do. Models of another name whose targets are not
    the inputs, one token on, are not judged.

    ## References
    - Vaswani et al. (2017), "Attention is all you need", section 3.2.3: masking in the decoder
    - `max_leak` is a hundred times what float32 rounding adds up to (experts may batch tokens
      differently); a causal mask makes the change exactly zero.
    """

    code: ClassVar = "GL612"
    name: ClassVar = "future-leakage"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = (
        "Give the attention a causal mask (is_causal=True, or -inf above the diagonal), pad "
        "convolutions on the left only, and use recurrent layers in one direction."
    )

    max_leak: float = 1e-4

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why the future was not looked for, or None."""
        if "future-leakage" not in trace.facts.probes:
            return "no model of the next token whose later tokens could be exchanged"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        seen = trace.facts.probes["future-leakage"]
        leak = float(seen["leak"])
        if not leak > self.max_leak:
            return
        module = seen.get("module")
        place = f", first in {module}" if module else ""
        yield self.finding(
            module or "",
            f"exchanging the tokens from position {seen['position']} on changes the outputs before "
            f"by {leak:.2g} of their size{place} (limit {self.max_leak:.0e})",
            trace=trace,
            help=DECODER if seen.get("no_decoder") else self.help,
            evidence={
                "leak": leak,
                "change": float(seen["change"]),
                "limit": self.max_leak,
                "position": seen["position"],
            },
        )
