"""Unloaded: which parameters a state dict gave values, and which it held under another name."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping

from torch import nn

from gradlint.watching.taken_over import taken_over


class Unloaded:
    """Follows what ``load_state_dict`` gave, and what it was asked for and did not find."""

    def __init__(self) -> None:
        self._given: dict[int, weakref.ref[nn.Parameter]] = {}
        """By ``id``, parameters that were loaded."""
        self.given: set[str] = set()
        """Paths of those at an optimizer's first step, and of copies of another model's weights."""
        self._asked: set[str] = set()
        self._left: dict[int, tuple[weakref.ref[nn.Parameter], int]] = {}
        """By ``id``, parameters with their versions when they were left as they were."""
        self.paths: set[str] = set()
        """Those that were still so when an optimizer made its first step."""

    def loaded(
        self, module: nn.Module, missing: Collection[str], unexpected: Collection[str]
    ) -> bool:
        """Note which parameters of `module` a state dict held under another name only.

        Args:
            module: What it was loaded into.
            missing: Names of `module` that it did not hold.
            unexpected: Its names that `module` does not have.

        Returns:
            Whether it held anything of `module`.
        """
        absent, others = set(missing), set(unexpected)
        ends = {end for name in others for end in _ends(name)}
        named = dict(module.named_parameters())
        for path, parameter in named.items():
            if path not in absent or parameter.is_inference():  # which has no version
                self._left.pop(id(parameter), None)
                self._give(parameter)
            elif path in ends or not others.isdisjoint(_ends(path)):
                self._left[id(parameter)] = weakref.ref(parameter), parameter._version
        return not named or not absent.issuperset(named)

    def look(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Note which of `parameters`, by path, were loaded, and which left as they were since."""
        for path, parameter in parameters.items() if self._given else ():
            known = self._given.get(id(parameter))
            if known is not None and known() is parameter:
                self.given.add(path)
        self.given |= taken_over(parameters, self._asked)
        for path, parameter in parameters.items() if self._left else ():
            seen, version = self._left.get(id(parameter), (None, 0))
            if seen is not None and seen() is parameter and parameter._version == version:
                self.paths.add(path)

    def _give(self, parameter: nn.Parameter) -> None:
        key, given = id(parameter), self._given

        def gone(reference: weakref.ref[nn.Parameter]) -> None:
            if given.get(key) is reference:
                del given[key]

        given[key] = weakref.ref(parameter, gone)


def _ends(name: str) -> Iterator[str]:
    """Yield what is left of a dotted name without its first parts."""
    while "." in name:
        name = name.partition(".")[2]
        yield name
