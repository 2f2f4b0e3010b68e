"""Merging: the first rank's trace, made whole by what the others handed over."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from gradlint.facts import Event
from gradlint.loop_facts import RankFacts
from gradlint.observation import Observation
from gradlint.trace import Trace
from gradlint.watching.parts import Check, Part, Place, Points, group_key

TOTALS = ("total_gradient_norm", "backward_gradient_norm", "norm_before_clipping")
OF_SHARDS = ("gradient_norm", "weight_norm", "gradient_ratio", "update_to_weight_ratio")

Shares = Mapping[str, tuple[int, ...]]
Numbers = dict[Place, dict[int, float]]


def ranks_facts(world: int, parts: Sequence[Part]) -> RankFacts:
    """Return what the ranks say of each other."""
    diverged, step = diverged_parameters(parts)
    metrics = [m for m in ("loss", "activation_grad_norm") if all(m in p.local for p in parts)]
    return RankFacts(
        world=world,
        reported=tuple(part.rank for part in parts),
        diverged=diverged,
        diverged_step=step,
        local={metric: tuple(part.local[metric] for part in parts) for metric in metrics},
    )


# -- replicas ---------------------------------------------------------------------------


def diverged_parameters(parts: Sequence[Part]) -> tuple[tuple[str, ...], int | None]:
    """Return the parameters that differ between ranks that must agree, and since when.

    Ranks must agree where data parallelism promises it, and where they apply the same gradient
    to the same parameters, bit for bit: nobody computes that by himself on other weights.
    """
    found: dict[str, None] = {}
    first: int | None = None
    for step in sorted({check.step for part in parts for check in part.checks}):
        for checks in _together(step, parts):
            wrong = _differing(checks)
            if wrong and first is None:
                first = step
            found |= dict.fromkeys(wrong)
    return tuple(found), first


def _together(step: int, parts: Sequence[Part]) -> Iterable[dict[int, Check]]:
    """Yield the ranks that were at the same place of their program at `step`."""
    places: dict[tuple[str, int], dict[int, Check]] = {}
    for part in parts:
        for check in part.checks:
            if check.step == step:
                places.setdefault((check.optimizer, check.own), {})[part.rank] = check
    return places.values()


def _differing(checks: Mapping[int, Check]) -> list[str]:
    same_update = _same_update(checks.values())
    found: list[str] = []
    for path in dict.fromkeys(path for check in checks.values() for path in check.weights):
        seen: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        for check in checks.values():
            if path in check.weights:
                copies = check.copies.get(path, ())
                seen.setdefault(copies, set()).add(check.weights[path])
        if any(len(sums) > 1 and (copies or same_update) for copies, sums in seen.items()):
            found.append(path)
    return found


def _same_update(checks: Collection[Check]) -> bool:
    """Whether all ranks apply the same gradients to what nobody promised to be the same."""
    loose = [
        {path: sums for path, sums in check.gradients.items() if path not in check.copies}
        for check in checks
    ]
    return bool(loose) and all(g == loose[0] for g in loose) and any(map(any, loose[0].values()))


# -- numbers ----------------------------------------------------------------------------


def merged(
    trace: Trace, parts: Sequence[Part], shares: Shares, *, clips: tuple[int, ...] = ()
) -> tuple[Trace, list[str]]:
    """Return the first rank's `trace` with the numbers of whole tensors and mean losses.

    Args:
        trace: What the first rank saw.
        parts: What ranks handed over, the first rank's own first.
        shares: By path, the ranks among which a parameter is split.
        clips: The ranks whose shares of a clipping norm are to be added, if it came in shares.

    Returns:
        The trace, and what could not be had.
    """
    by_rank = {part.rank: part for part in parts}
    lost: list[str] = []
    observations = _with_losses(trace.observations, parts)
    if shares:
        groups = {ranks for ranks in shares.values() if not set(ranks) <= by_rank.keys()}
        gone = sorted({rank for ranks in groups for rank in ranks} - by_rank.keys())
        if gone:
            ranks = ", ".join(map(str, gone))
            lost.append(
                "norms of parameters that are split over ranks are missing: parts of them are on "
                f"rank{'s' if len(gone) > 1 else ''} {ranks}"
            )
        own = {part.rank: _numbers(part.shards) for part in parts}
        looked = {part.rank: set(part.looked) for part in parts}
        whole = _whole_tensors(shares, own, looked)
        whole |= _whole_totals({part.rank: _numbers(part.squares) for part in parts}, shares)
        if clips:
            whole |= _whole_clips(parts, clips)
        observations = _replaced(observations, whole, shares, clipped=bool(clips))
    facts = replace(trace.facts, events=tuple(_events(trace.facts.events, parts)))
    return trace.but(observations=observations, facts=facts), lost


def without_shards(trace: Trace, shares: Shares, *, clips: bool) -> Trace:
    """Return `trace` without the norms of which this rank knows a part only."""
    if not shares and not clips:
        return trace
    kept = _replaced(trace.observations, {}, shares, clipped=clips)
    return trace.but(observations=kept)


def _numbers(points: Iterable[Points]) -> Numbers:
    return {(p.metric, p.path): dict(zip(p.steps, p.values, strict=True)) for p in points}


def _replaced(
    observations: Iterable[Observation], whole: Numbers, shares: Shares, *, clipped: bool
) -> list[Observation]:
    """Return whole tensors' numbers in place of parts' ones; without them, nothing."""
    found: list[Observation] = []
    for seen in observations:
        part = seen.metric in OF_SHARDS and seen.site.path in shares
        total = seen.metric in TOTALS
        if seen.metric == "norm_before_clipping":
            total = clipped
        if not part and not total:
            found.append(seen)
            continue
        value = whole.get((seen.metric, seen.site.path), {}).get(seen.step)
        if value is not None:
            found.append(replace(seen, value=value))
    return found


def _whole_tensors(
    shares: Shares, own: Mapping[int, Numbers], looked: Mapping[int, set[int]]
) -> Numbers:
    """Return the numbers of every parameter whose parts are all there."""
    whole: Numbers = {}
    for path, ranks in shares.items():
        if not set(ranks) <= own.keys():
            continue
        steps = set.intersection(*(looked[rank] for rank in ranks))
        parts = [_of(own[rank], path) for rank in ranks]
        for step in steps:
            weight = math.hypot(*(w.get(step, 0.0) for _, w, _ in parts))
            whole.setdefault(("weight_norm", path), {})[step] = weight
            if any(step in gradients for gradients, _, _ in parts):
                gradient = math.hypot(*(g.get(step, 0.0) for g, _, _ in parts))
                whole.setdefault(("gradient_norm", path), {})[step] = gradient
                if weight:
                    whole.setdefault(("gradient_ratio", path), {})[step] = gradient / weight
            if weight and any(step in updates for _, _, updates in parts):
                moved = math.hypot(*(u.get(step, 0.0) * w.get(step, 0.0) for _, w, u in parts))
                whole.setdefault(("update_to_weight_ratio", path), {})[step] = moved / weight
    return whole


def _of(numbers: Numbers, path: str) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    return (
        numbers.get(("gradient_norm", path), {}),
        numbers.get(("weight_norm", path), {}),
        numbers.get(("update_to_weight_ratio", path), {}),
    )


def _whole_totals(squares: Mapping[int, Numbers], shares: Shares) -> Numbers:
    """Return the norms of all gradients as one vector."""
    whole: Numbers = {}
    groups = {ranks for ranks in shares.values() if ranks}
    if any(rank not in squares for ranks in groups for rank in ranks):
        return whole
    for metric in ("total_gradient_norm", "backward_gradient_norm"):
        # What is whole on every rank counts once, as this rank has it.
        parts = [squares[min(squares)].get((metric, ""), {})]
        parts += [
            squares[rank].get((metric, group_key(ranks)), {}) for ranks in groups for rank in ranks
        ]
        there = [part for part in parts if part]
        steps = set.intersection(*map(set, there)) if there else set()
        whole[metric, ""] = {
            step: math.sqrt(math.fsum(part[step] for part in there)) for step in steps
        }
    return whole


def _whole_clips(parts: Sequence[Part], ranks: tuple[int, ...]) -> Numbers:
    by_rank = {part.rank: _numbers(part.squares) for part in parts}
    if not set(ranks) <= by_rank.keys():
        return {}
    metric = "norm_before_clipping"
    shares = [by_rank[rank].get((metric, group_key(ranks)), {}) for rank in ranks]
    steps = set.intersection(*map(set, shares))
    return {(metric, ""): {step: math.sqrt(math.fsum(s[step] for s in shares)) for step in steps}}


def _with_losses(observations: Iterable[Observation], parts: Sequence[Part]) -> list[Observation]:
    """Return the mean loss over the ranks that train the same; each sees its own data."""
    alike = [part for part in parts if part.shapes == parts[0].shapes]
    series = [_numbers(part.losses) for part in alike]
    found: list[Observation] = []
    for seen in observations:
        if seen.metric not in ("loss", "stream_loss"):
            found.append(seen)
            continue
        ranks = [
            s[seen.metric, seen.site.path] for s in series if (seen.metric, seen.site.path) in s
        ]
        if all(seen.step in rank for rank in ranks):
            values = [rank[seen.step] for rank in ranks]
            mean = (
                math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values)
            )
            found.append(replace(seen, value=mean))
    return found


def _events(own: Sequence[Event], parts: Sequence[Part]) -> list[Event]:
    """Return the first rank's events; where another saw the first bad number, that one's.

    Sums over ranks spread what is not finite: the first to see it in its own forward is where
    it comes from.
    """
    mine = [event for event in own if event.name == "non-finite"]
    others = [(_order(event), part.rank, event) for part in parts[1:] for event in part.events]
    if not others:
        return list(own)
    order, rank, event = min(others, key=lambda found: found[:2])
    if mine and min(map(_order, mine)) <= order:
        return list(own)
    earlier = replace(event, detail={**event.detail, "rank": rank})
    return [earlier, *(e for e in own if e.name != "non-finite")]


def _order(event: Event) -> tuple[int, bool]:
    return event.step, event.detail.get("phase") == "backward"
