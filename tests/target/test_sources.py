"""Source lines: every module points to the line of the user's code that builds it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlint.target import locate
from gradlint.target.models import find_model
from gradlint.target.module_file import import_target
from gradlint.target.sources import module_sources

HEAD = """\
import torch
from collections import OrderedDict
from torch import nn
import torch.nn.functional as F
"""


def lines(folder: Path, program: str, name: str = "model.py") -> dict[str, str]:
    """Path of each module → text of the line it points to."""
    file = folder / name
    file.write_text(HEAD + textwrap.dedent(program))
    model = find_model(import_target(str(file))).build()
    text = file.read_text().splitlines()
    found = module_sources(model, [str(file)])
    assert {Path(source.file).name for source in found.values()} <= {name}
    return {path: text[source.line - 1].strip() for path, source in found.items()}


def test_an_attribute_points_to_its_assignment(tmp_path):
    found = lines(
        tmp_path,
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1 = nn.Linear(4, 4)
                self.fc2, self.fc3 = nn.Linear(4, 4), nn.Linear(4, 4)  # two
                self.add_module("fc4", nn.Linear(4, 4))

            def forward(self, x):
                return x
        """,
    )

    assert found[""] == "class Net(nn.Module):"
    assert found["fc1"] == "self.fc1 = nn.Linear(4, 4)"
    assert found["fc2"].endswith("# two")
    assert found["fc3"].endswith("# two")
    assert found["fc4"].startswith("self.add_module")


def test_the_parts_of_a_container_point_to_their_own_lines(tmp_path):
    found = lines(
        tmp_path,
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(
                    nn.Linear(4, 8),
                    nn.ReLU(),  # first
                    nn.Linear(8, 8),
                    nn.ReLU(),  # second
                )
                self.heads = nn.ModuleDict({
                    "a": nn.Linear(8, 1),
                    "b": nn.Linear(8, 2),
                })
                self.named = nn.Sequential(OrderedDict([
                    ("one", nn.Linear(8, 3)),
                    ("two", nn.Linear(3, 5)),
                ]))

            def forward(self, x):
                return x
        """,
    )

    assert found["body"] == "self.body = nn.Sequential("
    assert found["body.0"] == "nn.Linear(4, 8),"
    assert found["body.1"].endswith("# first")
    assert found["body.3"].endswith("# second")
    assert found["heads.b"] == '"b": nn.Linear(8, 2),'
    assert found["named.two"] == '("two", nn.Linear(3, 5)),'


def test_layers_of_a_loop_point_to_the_loop(tmp_path):
    found = lines(
        tmp_path,
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                layers = [nn.Linear(4, 8), nn.ReLU()]  # in
                for _ in range(3):
                    layers.append(nn.Linear(8, 8))
                    layers.append(nn.ReLU())  # hidden
                layers += [nn.Linear(8, 1)]
                self.net = nn.Sequential(*layers)
                self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
                self.later = nn.ModuleList()
                for _ in range(2):
                    self.later.append(nn.Linear(5, 5))

            def forward(self, x):
                return x
        """,
    )

    assert found["net.0"].endswith("# in")
    assert found["net.2"] == "layers.append(nn.Linear(8, 8))"
    assert found["net.4"] == "layers.append(nn.Linear(8, 8))"
    assert found["net.7"].endswith("# hidden")
    assert found["net.8"] == "layers += [nn.Linear(8, 1)]"
    assert found["blocks.1"].startswith("self.blocks = ")
    assert found["later.1"] == "self.later.append(nn.Linear(5, 5))"


def test_inner_classes_point_into_their_own_class(tmp_path):
    found = lines(
        tmp_path,
        """
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.lin = nn.Linear(4, 4)

            def forward(self, x):
                return x

        class ConvReLU(nn.Sequential):
            def __init__(self):
                super().__init__(
                    nn.Conv2d(3, 4, 3),
                    nn.ReLU(),
                )

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.Sequential(Block(), Block())
                self.conv = ConvReLU()
                self.encoder = nn.TransformerEncoderLayer(4, 2, 8)

            def forward(self, x):
                return x
        """,
    )

    assert found["blocks.1"] == "self.blocks = nn.Sequential(Block(), Block())"
    assert found["blocks.1.lin"] == "self.lin = nn.Linear(4, 4)"
    assert found["conv"] == "self.conv = ConvReLU()"
    assert found["conv.1"] == "nn.ReLU(),"
    assert found["encoder.self_attn.out_proj"].startswith("self.encoder = ")


def test_a_sequential_out_of_a_function_points_to_its_parts(tmp_path):
    found = lines(
        tmp_path,
        """
        other = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def build_model():
            layers = []
            for _ in range(3):
                layers += [
                    nn.Linear(4, 4),
                    nn.Sigmoid(),
                ]
            return nn.Sequential(*layers, nn.Linear(4, 1))
        """,
    )

    assert found[""].startswith("return nn.Sequential(")
    assert found["2"] == "nn.Linear(4, 4),"
    assert found["5"] == "nn.Sigmoid(),"
    assert found["6"].startswith("return nn.Sequential(")


def test_a_sequential_of_a_module_points_to_its_parts(tmp_path):
    found = lines(
        tmp_path,
        """
        model = nn.Sequential(
            nn.Flatten(),
            nn.Linear(4, 4),
            nn.Linear(4, 1),
        )
        """,
    )

    assert found[""] == "model = nn.Sequential("
    assert found["2"] == "nn.Linear(4, 1),"


def test_a_method_that_makes_a_layer_points_to_its_call(tmp_path):
    found = lines(
        tmp_path,
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer1 = self._make(2)

            def _make(self, n):
                return nn.Sequential(*[nn.Linear(4, 4) for _ in range(n)])

            def forward(self, x):
                return x
        """,
    )

    assert found["layer1.1"] == "self.layer1 = self._make(2)"


def test_a_live_model_points_into_the_callers_file():
    model = nn.Sequential(
        nn.Linear(3, 5),
        nn.Softplus(),
    )

    found = module_sources(model)

    here = Path(__file__).read_text().splitlines()
    assert here[found["1"].line - 1].strip() == "nn.Softplus(),"
    assert Path(found["1"].file).name == "test_sources.py"


def test_a_file_below_the_working_directory_is_shown_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(HEAD + "model = nn.Linear(2, 2)\n")

    target = locate("model.py")

    assert module_sources(target.build(), target.files)[""].file == "model.py"


def test_a_class_without_a_file_has_no_lines():
    namespace: dict[str, object] = {"nn": nn, "__name__": "nowhere"}
    exec("class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
         "        self.a = nn.Linear(2, 2)\n", namespace)  # fmt: skip

    assert module_sources(namespace["Net"]()) == {}


@pytest.mark.parametrize("model", [nn.LSTM(2, 3), nn.TransformerEncoderLayer(4, 2, 8)])
def test_no_line_is_a_librarys(model):
    files = {Path(source.file).name for source in module_sources(model, [__file__]).values()}

    assert files <= {"test_sources.py"}


def test_nothing_is_raised_for_a_model_that_lies_about_itself():
    class Liar(nn.Module):
        def named_modules(self, *args, **kwargs):
            raise RuntimeError("no")

    assert module_sources(Liar()) == {}


def test_lines_leave_the_random_state_alone():
    state = torch.get_rng_state()

    module_sources(nn.Sequential(nn.ReLU()))

    assert torch.equal(state, torch.get_rng_state())


def test_an_operation_called_as_a_function_points_to_its_call(tmp_path):
    found = lines(
        tmp_path,
        """
        class Base(nn.Module):
            def activate(self, x):
                return torch.tanh(x)

        class Net(Base):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                self.gelu = nn.GELU()

            def forward(self, x):
                x = F.relu(self.fc(x))
                x = F.relu(x)  # twice: which one is not known
                x = self.gelu(self.activate(x)).sigmoid_()
                return (
                    x.view(-1, 4)
                    .softmax(dim=1)
                )
        """,
    )

    assert found[":tanh"] == "return torch.tanh(x)"
    assert found[":sigmoid"].endswith(".sigmoid_()")
    assert found[":softmax"] == ".softmax(dim=1)"
    assert ":relu" not in found
    assert ":gelu" not in found


def test_a_plain_list_of_modules_points_to_its_assignment(tmp_path):
    found = lines(
        tmp_path,
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 4)
                self.sizes = [4, 4]
                self.layers = [nn.Linear(4, 4) for _ in range(3)]

            def forward(self, x):
                return x
        """,
    )

    assert found[":layers"].startswith("self.layers = ")
    assert ":sizes" not in found
