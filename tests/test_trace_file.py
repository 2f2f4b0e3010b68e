"""Trace files: written line by line, read back exactly, as much as was written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradlint.config import Config, active_rules
from gradlint.diagnosis.judge import judge
from gradlint.errors import UsageError
from gradlint.finding import Source
from gradlint.graph import Graph
from gradlint.testing import chain, observe, trace_of
from gradlint.trace import (
    MODEL,
    Event,
    Facts,
    Flow,
    LoopFacts,
    ModuleFacts,
    Observation,
    OptimizerFacts,
    ParameterFacts,
    Site,
    Trace,
)
from gradlint.trace_file import (
    SCHEMA,
    TraceWriter,
    read_header,
    read_recorded,
    read_trace,
    write_trace,
)
from tests.traces import alike, contents, traces

FC1 = Site("fc1", "Linear", 0, "fc1")
HYPOTHESIS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


@pytest.fixture
def opened() -> Iterator[Callable[..., TraceWriter]]:
    """Make writers that are closed when the test is over."""
    writers: list[TraceWriter] = []

    def open_one(*args: Any, **options: Any) -> TraceWriter:
        writers.append(TraceWriter(*args, **options))
        return writers[-1]

    yield open_one
    for writer in writers:
        writer.close()


def seen(step: int, *values: float, metric: str = "loss", site: Site = MODEL) -> list[Observation]:
    return [Observation(metric, site, step, value) for value in values]


def a_run() -> Trace:
    return trace_of(
        observe("loss", "", [2.3, 1.9, 1.5], kind="model"),
        observe("gradient_norm", "fc1.weight", [0.1, math.nan, 1e-9], kind="parameter"),
        operations=chain("linear", "relu", "linear", "mse"),
        modules=[ModuleFacts("fc1", "Linear", depth=0, source=Source("model.py", 3))],
        parameters=[ParameterFacts("fc1.weight", (3, 2), module="fc1")],
        command="run",
        loop=LoopFacts(steps=3, optimizers=("SGD",)),
        optimizer=OptimizerFacts("SGD", ({"lr": 0.1, "betas": (0.9, 0.999)},)),
        flows=(Flow(0, FC1, {"weights": -1.0}),),
        events=(Event("non-finite", 2, "fc1", {"value": "nan", "limit": math.inf}),),
    )


@HYPOTHESIS
@given(trace=traces())
def test_a_trace_comes_back_exactly(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("trace") / "run.jsonl"

    write_trace(path, trace)

    assert alike(contents(read_trace(path)), contents(trace))


@HYPOTHESIS
@given(trace=traces(), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_pieces_written_one_after_another_are_the_whole(tmp_path_factory, trace, cuts):
    path = tmp_path_factory.mktemp("trace") / "run.jsonl"
    writer = TraceWriter(path)
    bounds = [0, *sorted(cuts), len(trace)]
    for start, end in pairwise(bounds):
        part = Facts(events=trace.facts.events[:start], flows=trace.facts.flows[:start])
        writer.facts(part)
        writer.step(0, trace.observations[start:end])
    writer.structure({}, {}, Graph())
    writer.structure(trace.modules, trace.parameters, trace.graph)
    writer.facts(trace.facts)
    writer.close(trace.facts.loop.ended if trace.facts.loop else "")

    assert alike(contents(read_trace(path)), contents(trace))


def test_the_judgement_of_a_file_is_that_of_the_trace(tmp_path):
    trace = a_run()
    path = tmp_path / "run.jsonl"
    write_trace(path, trace)

    rules = active_rules(Config())
    ours, theirs = judge(trace, rules), judge(read_trace(path), rules)

    assert ours.findings
    assert theirs == ours


def test_every_line_is_strict_json_and_the_first_says_what_it_is(tmp_path):
    path = tmp_path / "run.jsonl"
    write_trace(path, a_run(), versions={"gradlint": "1"}, target={"path": "train.py"})

    lines = [
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        for line in path.read_bytes().splitlines()
    ]

    assert lines[0] == {
        "schema": SCHEMA,
        "versions": {"gradlint": "1"},
        "target": {"path": "train.py"},
    }
    assert lines[-1] == {"ended": ""}
    assert read_header(path).target == {"path": "train.py"}


def test_each_record_is_in_the_file_before_the_call_returns(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path)
    for step in range(3):
        writer.step(step, seen(step, 1.0))

        assert read_trace(path).steps[-1] == step
    writer.close("")


def test_values_of_a_module_called_twice_survive_in_order(tmp_path):
    path = tmp_path / "run.jsonl"
    twice = [
        *seen(1, 0.5, 0.7, metric="activation_std", site=FC1),
        *seen(1, 2.0),
        *seen(1, 0.6, metric="activation_std", site=FC1),
    ]
    write_trace(path, Trace(twice))

    assert read_trace(path).observations == tuple(twice)


def test_what_is_known_already_is_not_written_again(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    trace = a_run()
    writer = opened(path)
    for step in range(4):
        writer.structure(trace.modules, trace.parameters, trace.graph)
        writer.facts(trace.facts.__class__(batch_size=step, flows=trace.facts.flows))
        writer.step(step, seen(step, 1.0, 2.0))
    writer.close("")

    kinds = [next(iter(line)) for line in lines_of(path)]
    later = [line["facts"] for line in lines_of(path) if "facts" in line][1:]
    assert [kinds.count(k) for k in ("modules", "flows", "sites", "layout")] == [1] * 4
    assert later == [{"batch_size": step} for step in (1, 2, 3)]


def test_a_changed_graph_and_shorter_events_replace_the_old(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path)
    writer.facts(Facts(synthesized=True, events=(Event("a"), Event("b"), Event("c"))))
    writer.structure({}, {}, Graph(chain("linear")))
    writer.facts(Facts(events=(Event("a"), Event("x"))))
    writer.structure({}, {}, Graph(chain("linear", "relu")))
    writer.close("")

    trace = read_trace(path)

    assert [event.name for event in trace.facts.events] == ["a", "x"]
    assert trace.facts.synthesized is False
    assert [op.kind for op in trace.graph] == ["linear", "relu"]


@pytest.mark.parametrize("cut", [1, 2, 7, 30])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, cut, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path)
    for step in range(3):
        writer.step(step, seen(step, 1.5))
    path.write_bytes(path.read_bytes()[:-cut])

    assert read_trace(path).steps == (0, 1)


def test_noise_on_the_last_line_is_left_out_and_in_the_middle_is_told(tmp_path):
    path = tmp_path / "run.jsonl"
    write_trace(path, a_run())
    whole = path.read_bytes()

    path.write_bytes(whole + b"\0\0\xff\n")
    assert len(read_trace(path)) == 6

    lines = whole.split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"step": 1', *lines[1:]]))
    with pytest.raises(UsageError, match="line 2 is not as a trace has it"):
        read_trace(path)


def test_a_file_with_a_header_alone_is_an_empty_trace(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    opened(path, target={"path": "train.py"})

    recorded = read_recorded(path)

    assert (len(recorded.trace), recorded.ended) == (0, None)
    assert recorded.target == {"path": "train.py"}


@pytest.mark.parametrize(
    ("ended", "told"), [(None, "killed"), ("", ""), ("until", "until"), ("exception", "exception")]
)
def test_a_loop_whose_file_was_not_closed_was_killed(tmp_path, ended, told, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path)
    writer.facts(Facts(command="run", loop=LoopFacts(steps=1)))
    if ended is not None:
        writer.close(ended)

    assert read_trace(path).facts.loop.ended == told


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no trace of gradlint"),
        (b"\n\n", "no trace of gradlint"),
        (b"import torch\n", "no trace of gradlint"),
        (b"\x80\x02K\x00.\n", "no trace of gradlint"),
        (b"[" * 100_000, "no trace of gradlint"),
        (b'{"schema": "gradlint.report/1"}\n', "no trace of gradlint"),
        (b'{"schema": "gradlint.trace/2"}\n', "read it with the gradlint that wrote it"),
        (b'{"schema": "gradlint.trace/1"}\n{"step": 1, "of": 0, "values": []}\n{}\n', "line 2"),
        (b'{"schema": "gradlint.trace/1"}\n{"graph": [{"id": 0, "inputs": [7]}]}\n{}\n', "line 2"),
        (b'{"schema": "gradlint.trace/1"}\n{"facts": {"events": 3}}\n{}\n', "line 2"),
    ],
    ids=["empty", "blank", "code", "bytes", "deep", "report", "newer", "layout", "graph", "facts"],
)
def test_what_is_no_trace_is_told_in_one_sentence(tmp_path, content, says):
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=says) as caught:
        read_trace(path)

    assert "other.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path, opened):
    with pytest.raises(UsageError, match="no such file"):
        read_trace(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="got the folder"):
        read_trace(tmp_path)
    with pytest.raises(UsageError, match="got the folder"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="expected a folder"):
        opened(tmp_path / "no" / "run.jsonl")


def test_a_trace_replaces_a_trace_and_nothing_else(tmp_path):
    path, script = tmp_path / "run.jsonl", tmp_path / "train.py"
    write_trace(path, a_run())
    script.write_text("import torch\n")

    write_trace(path, Trace(seen(1, 3.0)))

    assert read_trace(path).values == (3.0,)
    with pytest.raises(UsageError, match="is no trace"):
        write_trace(script, a_run())
    assert script.read_text() == "import torch\n"


def test_what_a_newer_gradlint_wrote_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    write_trace(path, a_run())
    first, *rest = path.read_text("ascii").splitlines()
    newer = [
        first.replace('"versions"', '"color":"red","versions"'),
        '{"weather":"fine"}',
        *(line.replace('"facts":{', '"facts":{"mood":[1],') for line in rest),
        '{"sites":[["fc9","Linear",3,"fc9","extra"]],"about":1}',
    ]
    path.write_text("\n".join(newer) + "\n", encoding="ascii")

    assert alike(contents(read_trace(path)), contents(a_run()))


def test_what_is_not_plain_is_kept_as_a_word_and_a_tensor_as_its_kind(tmp_path):
    class Tensor:
        shape = (2,)

        def __repr__(self) -> str:
            return "tensor([0.1, 0.2])"

    path = tmp_path / "run.jsonl"
    options = {"weight": Tensor(), "at": Path("x")}
    write_trace(path, Trace(modules={"a": ModuleFacts("a", "A", options=options)}))

    assert read_trace(path).modules["a"].options == {"weight": "<Tensor>", "at": "x"}


def full_step(step: int) -> list[Observation]:
    sites = [Site(f"fc{i}", "Linear", i, f"fc{i}") for i in range(10)]
    found = [Observation("activation_std", site, step, step / 7) for site in sites]
    return [*seen(step, 1 / (1 + step)), *found]


def test_a_file_that_grew_too_large_is_thinned_and_goes_on(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path, max_bytes=100_000)
    found: list[Observation] = []
    compacted = 0
    for step in range(2000):
        now = full_step(step) if step % 7 < 3 else seen(step, 1.0)
        found += now
        writer.step(step, now)
        compacted += writer.compact(Trace(found))
    writer.facts(Facts(command="run", loop=LoopFacts(steps=2000)))
    writer.close("")

    steps = read_trace(path).steps
    assert compacted >= 1
    assert path.stat().st_size < 150_000
    assert steps[:3] == (0, 1, 2)
    assert steps[-3:] == (1997, 1998, 1999)
    assert [file.name for file in tmp_path.iterdir()] == ["run.jsonl"]


def test_a_file_made_whole_at_the_end_says_everything_once(tmp_path, opened):
    trace = a_run()
    writer = opened(tmp_path / "run.jsonl")
    writer.step(1, seen(1, 99.0))
    writer.step(2, seen(2, 99.0))
    writer.whole(trace)
    writer.close("")

    assert alike(contents(read_trace(writer.path)), contents(trace))
    assert [file.name for file in tmp_path.iterdir()] == ["run.jsonl"]


def test_a_whole_that_is_too_large_is_thinned(tmp_path, opened):
    found = [o for step in range(1000) for o in full_step(step)]
    writer = opened(tmp_path / "run.jsonl", max_bytes=60_000)
    writer.step(0, found[:11])
    writer.whole(Trace(found))
    writer.close("")

    steps = read_trace(writer.path).steps
    assert writer.path.stat().st_size < 61_000
    assert (steps[0], steps[-1]) == (0, 999)


def test_a_run_that_goes_on_is_followed_step_by_step(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path, max_bytes=60_000)
    trace = a_run()
    for end in (0, 3, 4, 90, 900):
        found = [o for step in range(end + 1) for o in full_step(step)]
        writer.follow(trace.but(observations=found), end)

        steps = read_trace(path).steps
        assert (steps[0], steps[-1]) == (0, end)
        assert len(steps) == len(read_trace(path).of("loss"))
        counts = [len(read_trace(path).of("loss").since(s)) for s in (end, end + 1)]
        assert counts == [1, 0]
    assert alike(read_trace(path).graph, trace.graph)
    assert path.stat().st_size < 61_000


def test_compacting_a_small_file_does_nothing(tmp_path, opened):
    path = tmp_path / "run.jsonl"
    writer = opened(path)
    writer.step(0, seen(0, 1.0))
    before = path.read_bytes()

    assert writer.compact(Trace(seen(0, 1.0))) is False
    assert path.read_bytes() == before


def test_where_nothing_fits_the_file_is_not_rewritten_at_every_step(tmp_path, opened):
    writer = opened(tmp_path / "run.jsonl", max_bytes=1000)
    found: list[Observation] = []
    compacted = 0
    for step in range(300):
        now = [Observation("activation_std", Site(f"s{i}", "L", i), step, 0.1) for i in range(30)]
        found += now
        writer.step(step, now)
        compacted += writer.compact(Trace(found))

    assert 1 <= compacted < 20
    assert read_trace(writer.path).steps[0] == 0
    assert read_trace(writer.path).steps[-1] == 299


def test_a_disk_that_is_full_ends_the_writing_not_the_run(tmp_path, monkeypatch, opened):
    writer = opened(tmp_path / "run.jsonl")
    writer.step(0, seen(0, 1.0))

    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None: ...

        def close(self) -> None: ...

    with writer._file:
        monkeypatch.setattr(writer, "_file", Full())
    writer.step(1, seen(1, 1.0))
    writer.step(2, seen(2, 1.0))
    writer.close("")

    assert writer.error is not None
    assert writer.error.strerror == "No space left on device"
    assert read_trace(writer.path).steps == (0,)


def test_the_script_may_change_its_folder(tmp_path, monkeypatch, opened):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    writer = opened("run.jsonl", max_bytes=100)
    monkeypatch.chdir(tmp_path / "other")
    writer.step(0, seen(0, 1.0))

    assert writer.compact(Trace(seen(0, 1.0))) is True
    assert read_trace(tmp_path / "run.jsonl").steps == (0,)


def test_a_device_is_written_to_and_never_compacted(opened):
    writer = opened("/dev/null", max_bytes=10)
    writer.step(0, seen(0, 1.0))

    assert writer.compact(Trace(seen(0, 1.0))) is False
    writer.close("")
