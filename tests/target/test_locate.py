"""Every way of naming and finding a model, its batch, its loss and its optimizer."""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import gradlint.target
from gradlint.errors import TargetNotFoundError
from gradlint.target import Target, from_objects, locate

HEAD = """\
import torch
from torch import nn
import torch.nn.functional as F
"""

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
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + textwrap.dedent(text))
        return name

    return write


def run(target: Target, seed: int = 0) -> tuple[torch.Tensor, object, object]:
    """One pass over the first batch, backward included."""
    model = target.build().train()
    loss, outputs, targets = target.call(model, target.batches(model, seed)[0])
    loss.backward()
    return loss, outputs, targets


# -- the target's own name ------------------------------------------------------------


def test_a_file_with_a_class_is_enough(program):
    target = locate(program(NET))

    loss, outputs, targets = run(target)

    assert (target.path, target.object, target.rebuildable) == ("model.py", "Net", True)
    assert target.assumed == {
        "batch": "synthesized float32 32x6",
        "loss": "cross_entropy (chosen)",
        "targets": "synthesized: class labels",
    }
    assert target.synthesized
    assert loss.ndim == 0
    assert outputs.shape == (32, 3)
    assert targets.shape == (32,)


def test_a_name_behind_the_colon_chooses(program):
    path = program(NET + "\nclass Other(Net):\n    pass\n\nsmall = nn.Linear(6, 2)\n")

    assert locate(f"{path}:Other").object == "Other"
    given = locate(f"{path}:small")

    assert given.rebuildable is False
    assert given.build() is given.build()


def test_a_module_is_found_from_the_working_directory(program):
    program("", "pkg/__init__.py")
    program("from .parts import width\n" + NET, "pkg/nets.py")
    program("width = 3", "pkg/parts.py")

    target = locate("pkg.nets:Net")

    assert (target.path, target.object) == ("pkg.nets", "Net")
    assert run(target)[0].isfinite()


def test_a_file_imports_what_lies_beside_it(program, tmp_path):
    program("WIDTH = 5", "code/gl_sizes.py")
    program("from gl_sizes import WIDTH\nmodel = nn.Linear(WIDTH, 2)", "code/model.py")
    program("WIDTH = 7", "other/gl_sizes.py")
    program("from gl_sizes import WIDTH\nmodel = nn.Linear(WIDTH, 2)", "other/model.py")

    first, second = locate("code/model.py"), locate("other/model.py")

    assert first.build().in_features == 5
    assert second.build().in_features == 7


def test_a_file_is_not_main_and_sees_no_arguments_of_gradlints(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gradlint", "check", "--nonsense"])
    path = program(
        """
        import argparse
        argparse.ArgumentParser().parse_args()
        model = nn.Linear(2, 2)
        if __name__ == "__main__":
            raise RuntimeError("started")
        """
    )

    assert locate(path).object == "model"
    assert sys.argv == ["gradlint", "check", "--nonsense"]


def test_dataclasses_and_pickle_work_in_a_file(program):
    path = program(
        """
        import pickle
        from dataclasses import dataclass

        @dataclass
        class Config:
            width: int = 4

        model = nn.Linear(pickle.loads(pickle.dumps(Config())).width, 2)
        """
    )

    assert locate(path).build().in_features == 4


def test_what_a_file_prints_goes_to_stderr(program, capsys):
    path = program(
        "print('hello')\ndef build_model():\n    print('built')\n    return nn.Linear(2, 2)"
    )

    locate(path).build()

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err
    assert "built" in captured.err


def test_no_compiled_file_is_left_beside_the_target(program, tmp_path):
    locate(program(NET))

    assert not list(tmp_path.rglob("*.pyc"))


# -- the model ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "net"])
def test_an_instance_by_a_usual_name_is_the_model(program, name):
    target = locate(program(f"{NET}\n{name} = nn.Linear(4, 2)"))

    assert target.object == name
    assert not target.rebuildable


@pytest.mark.parametrize("name", ["build_model", "make_model", "create_model", "get_model"])
def test_a_function_by_a_usual_name_builds_the_model(program, name):
    target = locate(program(f"def {name}(width=4):\n    return nn.Linear(width, 2)"))

    assert target.object == name
    assert target.rebuildable
    assert target.build() is not target.build()


def test_names_are_looked_for_in_their_order(program):
    target = locate(
        program("def build_model():\n    return nn.Linear(3, 2)\nnet = nn.Linear(4, 2)")
    )

    assert target.object == "net"


def test_a_function_that_hands_out_one_model_does_not_rebuild_it(program):
    target = locate(program("shared = nn.Linear(4, 2)\ndef get_model():\n    return shared"))

    assert not target.rebuildable


def test_a_class_by_a_usual_name_is_built(program):
    target = locate(program(f"{NET}\nmodel = Net"))

    assert target.rebuildable
    assert isinstance(target.build(), nn.Module)


def test_the_outermost_class_is_the_model_when_the_others_are_its_parts(program):
    path = program(
        """
        class Block(nn.Module):
            def __init__(self, width=4):
                super().__init__()
                self.fc = nn.Linear(width, width)
            def forward(self, x):
                return x + self.fc(x)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.Sequential(Block(), Block())
            def forward(self, x):
                return self.blocks(x)

        class FocalLoss(nn.Module):
            def forward(self, outputs, targets):
                return (outputs - targets).abs().mean()
        """
    )

    assert locate(path).object == "Net"


def test_the_one_class_that_builds_is_taken_and_the_other_is_said(program):
    target = locate(
        program(
            NET + "\nclass Big(nn.Module):\n    def __init__(self, width):\n        pass\n"
            "    def forward(self, x):\n        return x\n"
        )
    )

    assert target.object == "Net"
    assert "Big" in target.assumed["model"]


def test_a_compiled_model_is_taken_out_of_its_wrapper(program):
    target = locate(program("model = torch.compile(nn.Linear(4, 2))"))

    assert type(target.build()) is nn.Linear


def test_building_is_left_to_the_callers_seed(program):
    target = locate(program(NET))

    torch.manual_seed(5)
    first = target.build().fc.weight
    torch.manual_seed(5)
    second = target.build().fc.weight

    assert torch.equal(first, second)


# -- the batch ------------------------------------------------------------------------

DATA = "from torch.utils.data import DataLoader, TensorDataset"
BATCH = "(torch.arange(24.0).reshape(4, 6), torch.tensor([0, 1, 2, 0]))"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param(f"example_batch = {BATCH}", "example_batch", id="value"),
        pytest.param(f"def example_batch():\n    return {BATCH}", "example_batch", id="function"),
        pytest.param(f"example_inputs = {BATCH}", "example_inputs", id="inputs-and-targets"),
        pytest.param(f"def get_batch():\n    return {BATCH}", "get_batch", id="get_batch"),
        pytest.param(f"def get_batch(split):\n    return {BATCH}", "get_batch", id="split"),
        pytest.param(f"batch = list({BATCH})", "batch", id="list-of-tensors"),
        pytest.param(f"train_loader = [{BATCH}] * 3", "train_loader", id="list-of-batches"),
        pytest.param(f"loader = iter([{BATCH}] * 3)", "loader", id="iterator"),
        pytest.param(f"def loader():\n    yield {BATCH}", "loader", id="generator"),
        pytest.param(
            f"batch = 4\n{DATA}\ndataloader = DataLoader(TensorDataset(*{BATCH}), batch_size=4)",
            "dataloader",
            id="loader",
        ),
        pytest.param(
            f"{DATA}\nloader = TensorDataset(*{BATCH})", "loader", id="dataset"
        ),
        pytest.param(
            f"x, y = {BATCH}\nbatch = {{'x': x, 'labels': y}}", "batch", id="mapping-with-labels"
        ),
        pytest.param(
            f"x, y = {BATCH}\nbatch = (x.numpy(), y.numpy())", "batch", id="numpy"
        ),
    ],
)  # fmt: skip
def test_a_batch_is_found_in_every_form(program, text, name):
    target = locate(program(f"{NET}\n{text}"))

    _, outputs, targets = run(target)

    assert target.assumed["batch"] == name
    assert not target.synthesized
    assert outputs.shape == (4, 3)
    assert sorted(targets.tolist()) == [0, 0, 1, 2]


def test_the_first_batches_of_a_loader_are_taken_the_same_for_a_seed(program):
    target = locate(
        program(
            NET + "from torch.utils.data import DataLoader, TensorDataset\n"
            "train_loader = DataLoader(TensorDataset(torch.randn(80, 6), torch.randint(3, (80,))),"
            " batch_size=4, shuffle=True, num_workers=2)"
        )
    )
    model = target.build()

    first, again, other = (target.batches(model, seed) for seed in (1, 1, 2))

    assert len(first) == 8
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].inputs, other[0].inputs)


def test_reading_batches_leaves_the_random_state_alone(program):
    target = locate(program(f"{NET}\ndef get_batch():\n    return torch.randn(4, 6)"))
    model = target.build()
    state = torch.get_rng_state()

    target.batches(model, 3)

    assert torch.equal(state, torch.get_rng_state())


def test_a_function_that_needs_arguments_is_passed_over_and_said(program):
    target = locate(program(f"{NET}\ndef get_batch(frame):\n    return None"))

    assert "get_batch needs arguments" in target.assumed["batch"]


def test_inputs_alone_get_targets(program):
    target = locate(program(f"{NET}\nexample_inputs = torch.randn(5, 6)"))

    assert run(target)[2].shape == (5,)
    assert target.assumed["targets"] == "synthesized: class labels"


PAIR = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 3), nn.Linear(4, 3)
    def forward(self, left, right):
        return self.a(left) + self.b(right)
"""


@pytest.mark.parametrize(
    "text",
    [
        "example_inputs = (torch.randn(5, 2), torch.randn(5, 4))",
        "example_inputs = {'left': torch.randn(5, 2), 'right': torch.randn(5, 4)}",
        "batch = (torch.randn(5, 2), torch.randn(5, 4), torch.randint(3, (5,)))",
        "batch = ((torch.randn(5, 2), torch.randn(5, 4)), torch.randint(3, (5,)))",
        "batch = {'left': torch.ones(5, 2), 'right': torch.ones(5, 4), 'y': torch.arange(5) % 3}",
    ],
)
def test_several_inputs_are_given_as_a_tuple_or_by_name(program, text):
    _, outputs, targets = run(locate(program(f"{PAIR}\n{text}")))

    assert outputs.shape == (5, 3)
    assert targets.shape == (5,)


@pytest.mark.parametrize(
    ("specs", "shapes"),
    [
        (["5x2", "5x4"], None),
        (["right=5x4:float32:0..1", "left=5x2"], None),
    ],
)
def test_input_specifications_replace_the_batch(program, specs, shapes):
    target = locate(program(PAIR + "\nbatch = 'no'"), inputs=specs)

    assert run(target)[1].shape == (5, 3)
    assert target.assumed["batch"].startswith("synthesized ")


def test_a_specification_sets_dtype_and_range(program):
    path = program("model = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(32, 2))")

    target = locate(path, inputs=["6x8:int64:10..20"])
    inputs = target.batches(target.build(), 0)[0].inputs

    assert inputs.shape == (6, 8)
    assert 10 <= inputs.min() <= inputs.max() < 20


# -- the loss -------------------------------------------------------------------------

ONE = "batch = (torch.ones(4, 6), torch.tensor([0, 1, 2, 0]))\n"


@pytest.mark.parametrize(
    "text",
    [
        "loss_fn = nn.CrossEntropyLoss()",
        "criterion = nn.CrossEntropyLoss",
        "loss = F.cross_entropy",
        "loss_fn = 'cross_entropy'",
        "def compute_loss(outputs, targets):\n    return F.cross_entropy(outputs, targets)",
        "def loss_fn(y_true, y_pred):\n    return F.cross_entropy(y_pred, y_true)",
        "def training_step(model, batch):\n    return F.cross_entropy(model(batch[0]), batch[1])",
        "def training_step(net, b):\n    return {'loss': F.cross_entropy(net(b[0]), b[1])}",
        "def training_step(net, b, batch_idx):\n    return F.cross_entropy(net(b[0]), b[1])",
        "def compute_loss(model, batch):\n    return F.cross_entropy(model(batch[0]), batch[1])",
        "def compute_loss(model, x, y):\n    return F.cross_entropy(model(x), y)",
    ],
)
def test_a_loss_is_found_in_every_form(program, text):
    target = locate(program(f"{NET}\n{ONE}{text}"))

    torch.manual_seed(0)
    model = target.build()
    loss, outputs, _ = target.call(model, target.batches(model, 0)[0])

    expected = nn.functional.cross_entropy(model(torch.ones(4, 6)), torch.tensor([0, 1, 2, 0]))
    assert torch.equal(loss, expected)
    assert outputs.shape == (4, 3)
    assert "(chosen)" not in target.assumed["loss"]


def test_a_training_step_wins_over_a_loss(program):
    text = "def training_step(model, batch):\n    return model(batch[0]).mean()"

    target = locate(program(f"{NET}\n{ONE}loss_fn = nn.MSELoss()\n{text}"))

    assert target.training_step is not None
    assert target.assumed["loss"] == "training_step"
    assert run(target)[0].ndim == 0


def test_a_loss_on_the_command_line_wins_over_the_files(program):
    path = program(
        f"{NET}\n{ONE}loss_fn = None\ndef training_step(model, batch):\n    raise ValueError"
    )

    target = locate(path, loss="CrossEntropyLoss")

    assert isinstance(target.loss_fn, nn.CrossEntropyLoss)
    assert run(target)[0].isfinite()


def test_a_loss_on_the_command_line_may_be_one_of_the_file(program):
    path = program(f"{NET}\n{ONE}def mine(outputs, targets):\n    return outputs.square().mean()")

    assert locate(path, loss="mine").assumed["loss"] == "mine"


def test_calling_leaves_no_trace_on_the_model(program):
    text = "def training_step(model, batch):\n    return model(batch[0]).mean()"
    target = locate(program(f"{NET}\n{ONE}{text}"))
    model = target.build()
    before = dict(model.__dict__)

    target.call(model, target.batches(model, 0)[0])

    assert model.__dict__ == before


def test_scores_of_a_sequence_are_compared_position_by_position():
    model = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 7))
    tokens, labels = torch.randint(11, (3, 5)), torch.randint(7, (3, 5))

    target = from_objects(model, (tokens, labels), nn.CrossEntropyLoss())

    loss = target.call(model, target.batches(model, 0)[0])[0]
    assert torch.equal(
        loss, nn.functional.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
    )


def test_what_torch_broadcasts_stays_broadcast():
    model, x, y = nn.Linear(3, 1), torch.randn(4, 3), torch.randn(4)
    target = from_objects(
        model, (x, y), lambda outputs, targets: (outputs - targets).square().mean()
    )

    loss = target.call(model, target.batches(model, 0)[0])[0]

    assert torch.equal(loss, (model(x) - y).square().mean())


@pytest.mark.parametrize(
    ("outputs", "targets", "name"),
    [
        ((4, 3), torch.tensor([0, 1, 2, 0]), "cross_entropy"),
        ((4, 3), torch.eye(4, 3)[[0, 1, 2, 0]], "cross_entropy"),
        ((4, 3), torch.randn(4, 3), "mse_loss"),
        ((4, 1), torch.tensor([0.0, 1.0, 1.0, 0.0]), "binary_cross_entropy_with_logits"),
        ((4, 1), torch.tensor([0, 1, 1, 0]), "binary_cross_entropy_with_logits"),
        ((4, 1), torch.tensor([0.5, 1.0, 1.0, 0.0]), "mse_loss"),
        ((4, 3), torch.tensor([[True, False, True]] * 4), "binary_cross_entropy_with_logits"),
        ((4, 5, 3), torch.zeros(4, 5, dtype=torch.long), "cross_entropy, class axis last"),
    ],
)
def test_a_loss_is_chosen_that_fits_the_given_targets(outputs, targets, name):
    model = nn.Linear(2, outputs[-1])
    target = from_objects(model, (torch.randn(*outputs[:-1], 2), targets))

    assert target.assumed["loss"] == f"{name} (chosen)"
    assert target.call(model, target.batches(model, 0)[0])[0].isfinite()


def test_a_model_with_a_place_for_targets_computes_its_own_loss(program):
    path = program(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 3)
            def forward(self, x, targets=None):
                logits = self.fc(x)
                return logits, None if targets is None else F.cross_entropy(logits, targets)
        example_batch = (torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
        """
    )

    target = locate(path)

    assert target.assumed["loss"] == "the model's own"
    assert run(target)[0].ndim == 0


# -- the optimizer --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "def build_optimizer(model):\n    return torch.optim.SGD(model.parameters(), lr=0.5)",
        "def build_optimizer(params):\n    return torch.optim.SGD(params, lr=0.5)",
        "def configure_optimizers(m):\n  return {'optimizer': torch.optim.SGD(m.parameters(), .5)}",
        "def configure_optimizers(m):\n    return [torch.optim.SGD(m.parameters(), lr=0.5)], []",
        "from functools import partial\noptimizer = partial(torch.optim.SGD, lr=0.5)",
    ],
)
def test_an_optimizer_is_built_by_functions_of_every_form(program, text):
    target = locate(program(f"{NET}\n{text}"))
    model = target.build()

    optimizer = target.build_optimizer(model)

    assert target.optimizer is None
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["params"][0] is next(model.parameters())


def test_a_given_optimizer_goes_with_the_given_model(program):
    target = locate(
        program("model = nn.Linear(4, 2)\noptimizer = torch.optim.Adam(model.parameters())")
    )

    assert target.optimizer.param_groups[0]["params"][0] is target.build().weight
    assert target.build_optimizer is None


def test_a_given_optimizer_is_made_again_for_a_model_that_is_rebuilt(program):
    text = "optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)"

    target = locate(program(f"{NET}\nmodel = Net()\n{text}") + ":Net")
    optimizer = target.build_optimizer(target.build())

    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("name", ["SGD", "sgd", "torch.optim.SGD"])
def test_an_optimizer_by_name_is_torchs_in_any_case(program, name):
    target = locate(program(NET), optimizer=name, lr=0.25)

    optimizer = target.build_optimizer(target.build())

    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_a_learning_rate_overrides_the_files(program):
    text = "def build_optimizer(model):\n    return torch.optim.SGD(model.parameters(), lr=0.5)"
    target = locate(program(f"{NET}\n{text}"), lr=0.125)

    assert target.build_optimizer(target.build()).param_groups[0]["lr"] == 0.125


def test_without_an_optimizer_none_is_assumed(program):
    target = locate(program(NET))

    assert target.build_optimizer is None
    assert target.optimizer is None
    assert "optimizer" not in target.assumed


def test_an_unknown_name_lists_what_there_is(program):
    with pytest.raises(TargetNotFoundError, match=r"gradlint check model\.py:Net"):
        locate(f"{program(NET)}:Nett")


# -- a LightningModule, without Lightning ---------------------------------------------

LIGHTNING = """
class Lit(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)
        {example}
    def forward(self, x):
        return self.fc(x)
    def training_step(self, batch, batch_idx):
        x, y = batch
        return {{"loss": F.cross_entropy(self(x), y)}}
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.125)
    {loader}
"""


@pytest.mark.parametrize(
    ("example", "loader", "batch"),
    [
        ("self.example_input_array = torch.randn(5, 6)", "", "the model's example_input_array"),
        (
            "",
            "def train_dataloader(self):\n        return [(torch.ones(5, 6), torch.arange(5) % 3)]",
            "the model's train_dataloader",
        ),
        ("", "", "synthesized float32 32x6"),
    ],
)
def test_a_lightning_module_brings_its_step_batch_and_optimizer(program, example, loader, batch):
    target = locate(program(LIGHTNING.format(example=example, loader=loader)))
    model = target.build()

    loss, outputs, _ = target.call(model, target.batches(model, 0)[0])

    assert target.assumed["batch"] == batch
    assert target.assumed["loss"] == "the model's training_step"
    assert target.build_optimizer(model).param_groups[0]["lr"] == 0.125
    assert loss.requires_grad
    assert outputs.shape[1] == 3


def test_no_file_of_the_finder_imports_transformers_or_lightning():
    files = list(Path(gradlint.target.__file__).parent.glob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]

    imported = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    imported |= {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}

    roots = {name.split(".")[0] for name in imported}
    assert "torch" in roots
    assert not roots & {"transformers", "lightning", "pytorch_lightning", "torchvision"}


def test_nothing_given_is_changed():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()

    from_objects(model, torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    from_objects(model)

    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
