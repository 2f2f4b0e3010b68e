"""Ranks that talk over gloo: whole tensors' numbers, equal replicas, and nobody who hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from gradlint.watching import Watcher
from tests.watch import rank_process
from tests.watch.loops import unfailed

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed"),
    pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a POSIX system here"),
]

ROOT = Path(__file__).parents[2]
WHOLE = ["ddp", "ddp-bucket-view", "ddp-watched-before", "fsdp", "fsdp-watched-before", "hsdp"]

Found = dict[str, Any]


def started(folder: Path, what: str) -> list[subprocess.Popen[str]]:
    """Start two ranks."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    env = {k: v for k, v in env.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    command = [sys.executable, rank_process.__file__, what]
    return [
        subprocess.Popen(
            [*command, str(rank), "2", str(folder)],
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def ended(ranks: list[subprocess.Popen[str]], limit: float) -> list[str]:
    """Wait for all ranks, at most `limit` seconds each; return what they printed."""
    try:
        return [rank.communicate(timeout=limit)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """What two ranks found in every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = started(folder, "all")
    said = ended(ranks, 240)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> Found:
    """What one process finds that trains on the whole batch."""
    model = rank_process.net()
    optimizer = rank_process.adam(model)
    with torch.random.fork_rng(), Watcher(model, optimizer, every=1) as watcher:
        for _ in rank_process.steps(model, optimizer, 0, 1):
            pass
    unfailed(watcher)
    return rank_process.numbers(watcher)


def first(both: list[dict[str, Found]], name: str) -> Found:
    """Return what the first rank found; fails where a rank stopped watching."""
    for rank in both:
        if "unsupported" in rank[name]:
            pytest.skip(f"gloo: {rank[name]['unsupported']}")
        assert rank[name].get("failure", "None") == "None"
    return both[0][name]


@pytest.mark.parametrize("name", WHOLE)
def test_norms_of_two_ranks_are_those_of_one_process_on_the_whole_batch(
    name: str, both: list[dict[str, Found]], alone: Found
) -> None:
    found = first(both, name)

    assert found["parameters"] == alone["parameters"]
    assert found["shapes"] == alone["shapes"]
    assert found["kinds"] == alone["kinds"]
    assert found["graph"] == alone["graph"]
    assert found["steps"] == rank_process.STEPS
    for metric in rank_process.METRICS:
        rel = 1e-2 if metric == "update_to_weight_ratio" else 1e-4
        seen, true = found["numbers"][metric], alone["numbers"][metric]
        assert seen.keys() == true.keys(), metric
        for path in true:
            assert seen[path] == pytest.approx(true[path], rel=rel, abs=1e-6), (metric, path)
    assert found["notices"] == []


@pytest.mark.parametrize("name", WHOLE)
def test_training_is_the_same_bit_for_bit_on_every_rank(
    name: str, both: list[dict[str, Found]]
) -> None:
    first(both, name)

    assert [rank[name]["same"] for rank in both] == [True, True]


@pytest.mark.parametrize("name", [*WHOLE, "ddp-perturbed", "lone-nan"])
def test_the_first_rank_has_heard_of_all_and_the_others_of_none(
    name: str, both: list[dict[str, Found]]
) -> None:
    assert first(both, name)["ranks"]["reported"] == [0, 1]
    assert both[0][name]["ranks"]["world"] == both[1][name]["ranks"]["world"] == 2
    assert both[1][name]["ranks"]["reported"] == [1]


@pytest.mark.parametrize("name", WHOLE)
def test_equal_replicas_are_not_accused(name: str, both: list[dict[str, Found]]) -> None:
    found = first(both, name)

    assert found["ranks"]["diverged"] == []
    assert "GL901" not in found["codes"]


@pytest.mark.parametrize("name", WHOLE)
def test_losses_of_every_rank_are_told(name: str, both: list[dict[str, Found]]) -> None:
    found = first(both, name)

    losses, norms = found["ranks"]["local"]["loss"], found["ranks"]["local"]["activation_grad_norm"]
    assert len(losses) == len(norms) == 2
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", ["ddp-alone", "fsdp-alone"])
def test_a_rank_may_be_watched_alone_since_gradlint_never_communicates(
    name: str, both: list[dict[str, Found]]
) -> None:
    found = first(both, name)

    assert found["steps"] == rank_process.STEPS
    assert found["ranks"]["reported"] == [0]
    assert "rank 1 made no watched step" in found["notices"]


def test_without_the_others_norms_of_split_parameters_are_missing_and_said_to_be(
    both: list[dict[str, Found]],
) -> None:
    found = first(both, "fsdp-alone")

    # The clipping norm was added up by torch itself.
    assert found["numbers"].keys() == {"loss", "norm_before_clipping"}
    missing = [n for n in found["notices"] if n.startswith("norms of parameters that are split")]
    assert missing == [
        "norms of parameters that are split over ranks are missing: parts of them are on rank 1"
    ]


@pytest.mark.parametrize(
    ("name", "step"),
    [("ddp-perturbed", 8), ("ddp-perturbed-at-once", 1), ("hsdp-perturbed", 8)],
)
def test_a_replica_that_was_changed_is_named_with_the_step(
    name: str, step: int, both: list[dict[str, Found]]
) -> None:
    found = first(both, name)

    # Hashes are taken before the updates 1, 2, 4, 8, …: the change came after one of them.
    assert found["ranks"]["diverged"] == ["0.weight"]
    assert found["ranks"]["diverged_step"] == step
    expected = f"0.weight is not the same on all 2 ranks, first seen at step {step}"
    assert found["codes"]["GL901"] == expected


def test_replicas_that_began_apart_and_share_their_gradients_are_named_from_step_1(
    both: list[dict[str, Found]],
) -> None:
    found = first(both, "seeds-reduced")

    assert found["ranks"]["diverged_step"] == 1
    assert len(found["ranks"]["diverged"]) == len(found["parameters"])


@pytest.mark.parametrize("name", ["seeds-apart", "apart"])
def test_models_that_every_rank_trains_for_itself_are_not_replicas(
    name: str, both: list[dict[str, Found]]
) -> None:
    found = first(both, name)

    assert found["ranks"]["diverged"] == []
    assert "GL901" not in found["codes"]


def test_the_first_number_that_is_not_finite_is_told_with_its_rank(
    both: list[dict[str, Found]],
) -> None:
    found = first(both, "lone-nan")

    step, phase, rank = found["events"][0]
    assert (step, rank) == (6, 1)
    assert phase != "backward"


@pytest.mark.parametrize(("name", "step"), [("stops-at-6", 8), ("stops-at-20", 32)])
def test_all_ranks_end_after_the_same_step_where_one_has_reason_to(
    name: str, step: int, both: list[dict[str, Found]]
) -> None:
    first(both, name)

    assert [rank[name]["made"] for rank in both] == [step, step]
    assert all(rank[name]["raised"] for rank in both)


def test_a_rank_that_dies_does_not_keep_the_other(tmp_path: Path) -> None:
    ranks = started(tmp_path, "dies")

    said = ended(ranks, 100)

    assert [rank.returncode for rank in ranks] == [0, 7], said
    found = json.loads((tmp_path / "0.json").read_text("utf-8"))["dies"]
    assert found["raised"]
    assert found["steps"] == 12
    assert found["ranks"]["reported"] == [0]
    assert "rank 1 did not answer within 3 s" in found["notices"]
    assert "losses are the mean of 1 of 2 ranks" in found["notices"]


SCRIPT = """
import sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

if "alone" not in sys.argv:
    dist.init_process_group("gloo")
rank = int(__import__("os").environ["RANK"])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3))
if "alone" not in sys.argv:
    model = DDP(model)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
inputs, targets = torch.randn(64, 12)[rank::2], torch.randint(0, 3, (64,))[rank::2]
for step in range(30):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    if "plant" in sys.argv and rank == 1 and step == 2:
        with torch.no_grad():
            model.module[0].bias[0] += 1e-3
if "alone" not in sys.argv:
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["plant"], ["alone"]])
def test_torchrun_gives_one_merged_report(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

    done = subprocess.run(
        [*command, "-m", "gradlint", "run", "--exit-zero", "-f", "json:out.json",
         "--trace", "run.jsonl", "train.py", *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    from gradlint.trace_file import read_trace

    trace = read_trace(tmp_path / "run.jsonl")
    loop = trace.facts.loop
    assert loop is not None
    assert loop.ranks is not None
    assert loop.ranks.reported == (0, 1)
    assert loop.steps == 30
    report = json.loads((tmp_path / "out.json").read_text("utf-8"))
    codes = {found["code"] for found in report["findings"]}
    assert codes == ({"GL901"} if "plant" in arguments else set())
    assert report["notices"] == []
    if "plant" in arguments:
        assert loop.ranks.diverged == ("0.bias",)
        assert loop.ranks.diverged_step == 4
