"""Bad input: one clear sentence, which names the place and the way out, and the right exit code."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from torch import nn

from gradlint.errors import GradlintError, TargetError, UsageError
from gradlint.target import from_objects, locate

HEAD = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\n"

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)
    def forward(self, x):
        return self.fc(x)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text: str, name: str = "model.py") -> str:
        (tmp_path / name).write_text(HEAD + textwrap.dedent(text))
        return name

    return write


def error_of(target: str, **options) -> GradlintError:
    """The one error of a target, raised where it is located or where it first runs."""
    with pytest.raises(GradlintError) as caught:
        run(target, **options)
    return caught.value


def run(target: str, **options) -> None:
    found = locate(target, **options)
    model = found.build()
    if found.build_optimizer is not None:
        found.build_optimizer(model)
    found.call(model, found.batches(model, 0)[0])


def test_every_error_is_one_line(program):
    assert "\n" not in str(error_of(program("def f(:\n")))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("modle.py", ["found no file 'modle.py'", "did you mean 'model.py'?"]),
        ("nowhere/model.py", ["found no file 'nowhere/model.py'"]),
        (".", ["got the directory '.'", "gradlint check model.py"]),
        ("notes.txt", ["expected a Python file", "notes.txt"]),
        ("gl_nowhere", ["no module 'gl_nowhere'", "gradlint check gl_nowhere.py"]),
        ("gl_nowhere.nets:Net", ["no module 'gl_nowhere'"]),
        ("model.py:", ["path.py:name"]),
        ("model.py:Nett", ["'Nett'", "gradlint check model.py:Net"]),
        ("model.py:torch.nope", ["'torch.nope'"]),
        ("model.py:F", ["expected F", "nn.Module"]),
    ],
)
def test_what_cannot_be_found_is_said_with_a_way_out(program, tmp_path, target, said):
    program(NET)
    (tmp_path / "notes.txt").write_text("")

    error = error_of(target)

    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    for part in said:
        assert part in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("def f(:\n    pass\n", ["syntax error at model.py:4", "def f(:"], id="syntax"),
        pytest.param("x = '\0'", ["model.py"], id="null-byte"),
        pytest.param(
            "import gl_absent", ["imports 'gl_absent' (line 4: import gl_absent)", "not installed"],
            id="import",
        ),
        pytest.param("from torch import nope", ["ImportError", "line 4"], id="import-name"),
        pytest.param("from . import sibling", ["gradlint check model"], id="relative-import"),
        pytest.param("raise ValueError('no data')", ["ValueError: no data", "line 4"], id="raises"),
        pytest.param("import sys\nsys.exit(4)", ["exits with status 4", "line 5"], id="exits"),
        pytest.param("x = 1", ["a model in model.py", "nn.Module subclass"], id="no-model"),
        pytest.param(
            "mlp = nn.Linear(2, 2)", ["gradlint check model.py:mlp"], id="model-by-another-name"
        ),
        pytest.param(
            NET + NET.replace("Net", "Other"),
            ["found 2: Net, Other", "gradlint check model.py:Net or gradlint check model.py:Other"],
            id="two-models",
        ),
        pytest.param(
            NET.replace("(self)", "(self, width, depth)"),
            ["needs width, depth", "Net(width=…, depth=…)"],
            id="arguments-needed",
        ),
        pytest.param(
            "def build_model(config):\n    return nn.Linear(2, 2)",
            ["build_model", "needs config"],
            id="function-arguments",
        ),
        pytest.param(
            "def build_model():\n    return nn.Linear('a', 2)",
            ["build_model() in model.py", "TypeError", "model.py:5"],
            id="cannot-be-built",
        ),
        pytest.param("def build_model():\n    return 3", ["an nn.Module, got int 3"], id="int"),
        pytest.param(
            "model = nn.Sequential(nn.ReLU())", ["parameters to train", "Sequential"], id="empty"
        ),
        pytest.param(
            "model = nn.Linear(2, 2, device='meta')",
            ["to have weights", "weight is on the meta device", "real device"],
            id="meta",
        ),
        pytest.param(
            NET + "model = torch.jit.script(Net())",
            ["a module in Python, got a TorchScript program", "torch.jit"],
            id="scripted",
        ),
        pytest.param(NET + "batch = torch.ones(0, 6)", ["empty tensor of shape 0x6"], id="no-rows"),
        pytest.param(NET + "loader = []", ["loader", "at least one batch"], id="no-batches"),
        pytest.param(NET + "batch = ('a', 'b')", ["batch to hold tensors"], id="no-tensors"),
        pytest.param(
            NET + "def training_step(batch):\n    pass", ["training_step(model, batch)"], id="step"
        ),
        pytest.param(
            NET + "class L(nn.Module):\n  def __init__(self, a):\n    pass\ncriterion = L",
            ["L to be built without arguments", "needs a"],
            id="loss-arguments",
        ),
        pytest.param(
            NET + "def build_optimizer(model, rate):\n    pass",
            ["build_optimizer", "rate"],
            id="optimizer-arguments",
        ),
        pytest.param(
            NET + "def build_optimizer(model):\n    return 3",
            ["build_optimizer", "got int"],
            id="no-optimizer",
        ),
        pytest.param(
            NET + "def build_optimizer(model):\n    raise KeyError('lr')",
            ["build_optimizer", "KeyError", "model.py:12"],
            id="optimizer-raises",
        ),
    ],
)  # fmt: skip
def test_what_cannot_start_is_said_and_ends_with_2(program, text, said):
    error = error_of(program(text))

    assert error.exit_code == 2
    for part in said:
        assert part in str(error)


TRAINS = f"""
{NET}
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
def train():
    for step in range(1_000_000_000):
        try:
            optimizer.zero_grad()
            net(torch.ones(2, 6)).sum().backward()
            optimizer.step()
        except Exception:
            pass
train()
"""


def test_a_file_that_trains_at_import_is_stopped_and_named(program):
    error = error_of(program(TRAINS))

    assert error.exit_code == 2
    assert "model.py trains when it is imported (line 23: train())" in str(error)
    assert 'if __name__ == "__main__":' in str(error)
    assert "gradlint run model.py" in str(error)


def test_training_by_hand_at_import_is_recognized(program):
    text = """
        w = torch.ones(3, requires_grad=True)
        while True:
            (w ** 2).sum().backward()
            w.data -= 0.1 * w.grad
            w.grad = None
    """

    assert "trains when it is imported (line 7" in str(error_of(program(text)))


def test_a_training_in_an_imported_file_is_named_by_the_targets_line(program):
    program(TRAINS, "gl_script.py")

    assert "(line 4: import gl_script)" in str(error_of(program("import gl_script")))


def test_a_short_training_of_the_target_at_import_is_named_by_its_line(program):
    error = error_of(program(TRAINS.replace("range(1_000_000_000)", "range(5)")))

    assert error.exit_code == 2
    assert "model.py trains when it is imported (line 23: train())" in str(error)


def test_a_teacher_may_be_trained_at_import(program):
    text = TRAINS.replace("net = Net()", "net, student = Net(), Net()")
    short = program(text.replace("1_000_000_000", "40"))

    assert locate(f"{short}:student").object == "student"
    assert "trains when" in str(error_of(f"{short}:net"))
    assert "trains when" in str(error_of(f"{program(text)}:student"))


def test_what_was_trained_at_import_may_be_a_frozen_part_of_the_target(program):
    frozen = "net.requires_grad_(False)\nstudent = nn.Sequential(net, nn.Linear(3, 2))"
    text = TRAINS.replace("1_000_000_000", "40") + frozen

    assert locate(f"{program(text)}:student").object == "student"


def test_one_step_that_calls_its_closure_often_is_no_training(program):
    text = f"""{NET}
net = Net()
optimizer = torch.optim.LBFGS(net.parameters(), max_iter=20)
def closure():
    optimizer.zero_grad()
    loss = (net(torch.randn(8, 6)) ** 2).mean()
    loss.backward()
    return loss
optimizer.step(closure)
"""

    assert locate(program(text)).object == "net"


def test_one_step_at_import_is_no_training(program):
    target = locate(program(TRAINS.replace("range(1_000_000_000)", "range(2)")))

    assert target.object == "net"


def test_nothing_is_left_behind_by_a_stopped_import(program):
    backward = torch.autograd.backward

    error_of(program(TRAINS))

    assert torch.autograd.backward is backward
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.step()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "batch = (torch.ones(2, 5), torch.tensor([0, 1]))\nloss_fn = F.cross_entropy",
            ["fc (Linear)", "2x5", "model.py:10", "expects 6 features"],
            id="batch-does-not-fit",
        ),
        pytest.param(
            "batch = (torch.ones(2, 6), torch.tensor([0, 1]))\n"
            "def loss_fn(outputs, targets):\n    return F.cross_entropy(outputs, targets, "
            "reduction='none')",
            ["the loss to be a scalar", "shape (2,)", ".mean()"],
            id="loss-not-scalar",
        ),
        pytest.param(
            "batch = (torch.ones(2, 6), torch.tensor([0, 1]))\nloss_fn = lambda o, t: 3.0",
            ["scalar tensor, got a float"],
            id="loss-not-tensor",
        ),
        pytest.param(
            "batch = (torch.ones(2, 6), torch.tensor([0, 1]))\n"
            "loss_fn = lambda o, t: (o.argmax(1) == t).sum()",
            ["floating-point scalar, got torch.int64"],
            id="loss-integer",
        ),
        pytest.param(
            "batch = (torch.ones(2, 6), torch.tensor([0, 1]))\n"
            "def training_step(model, batch):\n    raise KeyError('x')",
            ["training_step raised KeyError: 'x' at model.py:13", "float32 2x6"],
            id="step-raises",
        ),
        pytest.param(
            "batch = (torch.ones(2, 6), torch.ones(3, 1))", ["float32 2x3", "float32 3x1"],
            id="targets-do-not-fit",
        ),
        pytest.param(
            "batch = (torch.ones(2, 6), torch.ones(2, 6))\nloss_fn = nn.CrossEntropyLoss()",
            ["the loss raised RuntimeError", "outputs float32 2x3", "targets float32 2x6"],
            id="loss-raises",
        ),
        pytest.param(
            "def get_batch():\n    raise OSError('no disk')",
            ["get_batch", "OSError: no disk at model.py:12"],
            id="batch-raises",
        ),
    ],
)  # fmt: skip
def test_what_raises_while_it_runs_is_said_with_its_place_and_ends_with_3(program, text, said):
    error = error_of(program(NET + text))

    assert isinstance(error, TargetError)
    assert error.exit_code == 3
    for part in said:
        assert part in str(error)


@pytest.mark.parametrize("batch", ["", "batch = (torch.ones(2, 6), torch.tensor([0, 1]))"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('boom')", ["ValueError: boom", "model.py:10"]),
        ("return self.fc(x).argmax(1)", ["floating-point outputs, got int64", "argmax"]),
        ("return F.linear(self.fc(x), self.fc.weight)", ["RuntimeError", "model.py:10"]),
        ("return None", ["None"]),
    ],
)
def test_a_forward_that_cannot_train_is_said(program, body, batch, said):
    error = error_of(program(NET.replace("return self.fc(x)", body) + batch))

    assert error.exit_code == 3
    for part in said:
        assert part in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "3y4", "3x0x4", "3x4:nope", "3x4:5..1", "3x4:1..1", "3x4:int64:0..9:2", "4-3",
        "2name=3x4", "3x4:float32:float64", "-3x4", "name=",
    ],
)  # fmt: skip
def test_a_bad_specification_is_said_with_examples(program, text):
    error = error_of(program(NET), inputs=[text])

    assert error.exit_code == 2
    assert "--input" in str(error)
    assert "32x3x64x64" in str(error)


@pytest.mark.parametrize("specs", [["2x6", "x=2x6"], ["x=2x6", "x=2x6"]])
def test_specifications_that_do_not_go_together_are_refused(program, specs):
    assert error_of(program(NET), inputs=specs).exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "cross_entropi"}, "did you mean 'cross_entropy'?"),
        ({"loss": "mse_los"}, "did you mean 'mse_loss'?"),
        ({"loss": "nonsense-at-all"}, "--loss cross_entropy"),
        ({"optimizer": "adamm"}, "did you mean 'Adam'?"),
        ({"optimizer": "zzz"}, "for example AdamW"),
        ({"lr": -1.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"batch_size": 0}, "--batch-size"),
        ({"device": "gpu"}, "--device"),
    ],
)
def test_a_bad_option_is_said_with_a_way_out(program, options, said):
    error = error_of(program(NET), **options)

    assert error.exit_code == 2
    assert said in str(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((3, torch.ones(2, 2)), "expected model to be an nn.Module"),
        ((nn.Linear(2, 2), "nothing"), "to hold tensors"),
        ((nn.Linear(2, 2), torch.ones(2, 2), 3), "expected loss_fn"),
        ((nn.Linear(2, 2), torch.ones(2, 2), nn.MSELoss(), 3), "expected optimizer"),
        ((lambda: 3, torch.ones(2, 2)), "nn.Module, got int"),
        ((nn.Linear, torch.ones(2, 2)), "needs in_features, out_features"),
        ((nn.ReLU(), torch.ones(2, 2)), "ReLU has none"),
    ],
)
def test_live_objects_of_another_kind_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        from_objects(*arguments)
