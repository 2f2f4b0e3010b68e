"""Faults of values: numbers, losses, outputs, initialization, data."""

from __future__ import annotations

from tests.scripts.planting import lines, plant

# fmt: off
NAME = "log-of-zero"
plant(NAME, "GL501", "vae",
      ('BCE = F.binary_cross_entropy(recon_x, x.view(-1, 64), reduction="sum")',
       "x = x.view(-1, 64)\n    BCE = torch.sum(x * (torch.log(x) - torch.log(recon_x)))"))
plant(NAME, "GL501", "gcn",
      ("x = F.relu(self.gc1(x, adj))", "x = F.relu(self.gc1(torch.log(x), adj))"))
plant(NAME, "GL501", "digits_cnn", ("    images = images / 16.0\n",
      "    images = torch.log(images)\n"))

# --- Losses and outputs.
NAME = "softmax-before-cross-entropy"
plant(NAME, "GL601", "quickstart",
      (lines(12, "nn.Linear(128, 10),"), lines(12, "nn.Linear(128, 10),", "nn.Softmax(dim=1),")))
plant(NAME, "GL601", "transformer_classification",
      ("return self.classifier(x)", "return torch.softmax(self.classifier(x), dim=-1)"))
plant(NAME, "GL601", "resnet_digits",
      ("out = self.linear(out)", "out = F.softmax(self.linear(out), dim=1)"))
plant(NAME, "GL601", "amp_accumulation",
      (lines(4, "layers.append(nn.Linear(in_size, out_size))"),
       lines(4, "layers.append(nn.Linear(in_size, out_size))", "layers.append(nn.Sigmoid())")),
      because="a sigmoid before binary cross-entropy with logits")

NAME = "softmax-axis"
plant(NAME, "GL113 GL602", "digits_cnn",
      ("F.log_softmax(x, dim=1)", "F.log_softmax(x, dim=0)"),
      because="over the batch: what NLLLoss gets are no log-probabilities of classes")
plant(NAME, "GL113 GL602", "word_language_model",
      ("torch.log_softmax(decoded, dim=1)", "torch.log_softmax(decoded, dim=0)"))
plant(NAME, "GL113 GL602", "gcn",
      ("F.log_softmax(x, dim=1)", "F.log_softmax(x, dim=0)"))
plant(NAME, "GL113 GL602 GL604", "char_rnn_classification",
      ("nn.LogSoftmax(dim=1)", "nn.LogSoftmax(dim=0)"),
      because="the batch is one name: the softmax of one number is the constant 1")

NAME = "broadcast-target"
plant(NAME, "GL605", "diabetes_regression",
      ("y_train = torch.tensor((y_train - y_mean) / y_std, dtype=torch.float32).reshape(-1, 1)",
       "y_train = torch.tensor((y_train - y_mean) / y_std, dtype=torch.float32)"))
plant(NAME, "GL605", "regression", ("    y = f(x)\n", "    y = f(x).squeeze(1)\n"))
plant(NAME, "GL605", "siamese_contrastive",
      ("torch.tensor(float(not same))", "torch.tensor([float(not same)])"),
      missed="a loss written by hand: the graph does not tell the shape of a constant factor")

NAME = "output-out-of-reach"
plant(NAME, "GL603", "diabetes_regression",
      ("    nn.Linear(32, 1),\n", "    nn.Linear(32, 1),\n    nn.ReLU(),\n"))
plant(NAME, "GL603", "autoencoder", ("            nn.Tanh(),\n", "            nn.Sigmoid(),\n"))

# --- Initialization and data.
NAME = "zero-init"
ZEROS = "for param in model.parameters():\n    nn.init.zeros_(param)\n"
plant(NAME, "GL102", "quickstart", ("print(model)\n", ZEROS + "print(model)\n"))
plant(NAME, "GL102", "diabetes_regression",
      ("criterion = nn.MSELoss()\n", ZEROS + "criterion = nn.MSELoss()\n"))
plant(NAME, "GL102", "autoencoder",
      ("criterion = nn.MSELoss()\n", ZEROS + "criterion = nn.MSELoss()\n"))

NAME = "unscaled-input"
plant(NAME, "GL606", "quickstart", ("images = images / 16\n", "images = images * 255 / 16\n"))
plant(NAME, "GL606", "siamese_contrastive",
      ("dtype=torch.float32).unsqueeze(1) / 16", "dtype=torch.float32).unsqueeze(1) * 255 / 16"))
plant(NAME, "GL606", "amp_accumulation", ("x = (x - x.mean(0)) / x.std(0)\n", ""))

NAME = "sorted-classes"
plant(NAME, "GL613", "quickstart",
      ("labels = torch.tensor(digits.target)\n",
       "labels = torch.tensor(digits.target)\n"
       "order = torch.argsort(labels)\nimages, labels = images[order], labels[order]\n"),
      ("TensorDataset(images[:1400], labels[:1400]), batch_size=batch_size, shuffle=True",
       "TensorDataset(images[:1400], labels[:1400]), batch_size=batch_size"))
plant(NAME, "GL613", "resnet_digits",
      ("labels = torch.tensor(digits.target)\n",
       "labels = torch.tensor(digits.target)\n"
       "order = torch.argsort(labels)\nimages, labels = images[order], labels[order]\n"),
      ("batch_size=64, shuffle=True, drop_last=True", "batch_size=64, drop_last=True"))
