"""Faults of wiring: gradients, graphs, parameters, layers."""

from __future__ import annotations

from tests.scripts.planting import lines, plant

# fmt: off
# --- Gradients that are not cleared.
NAME = "no-zero-grad"
plant(NAME, "GL704", "digits_cnn", (lines(8, "optimizer.zero_grad()"), ""))
plant(NAME, "GL704", "diabetes_regression", (lines(8, "optimizer.zero_grad()"), ""))
plant(NAME, "GL704", "word_language_model", (lines(8, "model.zero_grad()"), ""))
plant(NAME, "GL704", "gpt", (lines(4, "optimizer.zero_grad(set_to_none=True)"), ""))

NAME = "cleared-before-step"
plant(NAME, "GL705", "diabetes_regression",
      (lines(8, "optimizer.zero_grad()", "loss.backward()"),
       lines(8, "loss.backward()", "optimizer.zero_grad()")))
plant(NAME, "GL705", "vae",
      (lines(8, "train_loss += loss.item()"),
       lines(8, "train_loss += loss.item()", "optimizer.zero_grad()")))
plant(NAME, "GL705", "transformer_classification",
      (lines(12, "optimizer.zero_grad()"), ""),
      (lines(12, "clip_grad_norm_(model.parameters(), 1.0)"),
       lines(12, "clip_grad_norm_(model.parameters(), 1.0)", "model.zero_grad()")))
plant(NAME, "GL705", "amp_accumulation",
      (lines(12, "opt.zero_grad()"), ""),
      (lines(12, "scaler.step(opt)"), lines(12, "opt.zero_grad()", "scaler.step(opt)")))

# --- Optimizers with the wrong parameters.
NAME = "other-model"
plant(NAME, "GL703", "quickstart",
      ("optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)\n",
       "optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)\n"
       "model = NeuralNetwork().to(device)\n"))
plant(NAME, "GL703", "diabetes_regression",
      ("optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)\n",
       "optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)\n"
       "model = copy.deepcopy(model)\n"),
      ("import numpy as np\n", "import copy\n\nimport numpy as np\n"))
plant(NAME, "GL703", "resnet_digits",
      ("net = net.to(device)\n", ""),
      ("optimizer = optim.SGD(net.parameters()",
       "optimizer = optim.SGD(ResNet([1, 1, 1]).parameters()"))
plant(NAME, "GL702", "dcgan",
      ("optimizerG = optim.Adam(netG.parameters()", "optimizerG = optim.Adam(netD.parameters()"),
      because="the parameters are a watched model's, but of the other one: nobody has netG's")

NAME = "head-only"
plant(NAME, "GL702", "digits_cnn",
      ("optim.Adadelta(model.parameters()", "optim.Adadelta(model.fc2.parameters()"))
plant(NAME, "GL702", "transformer_classification",
      ("torch.optim.AdamW(model.parameters()", "torch.optim.AdamW(model.classifier.parameters()"))
plant(NAME, "GL702", "resnet_digits",
      ("optim.SGD(net.parameters()", "optim.SGD(net.linear.parameters()"))
plant(NAME, "GL702 GL406", "word_language_model",
      (lines(8, "for p in model.parameters():"), lines(8, "for p in model.decoder.parameters():")),
      because="there is no optimizer: that weights with a gradient stay is the same fact")

# --- Graphs that are cut.
NAME = "detached"
plant(NAME, "GL701", "autoencoder",
      ("x = self.encoder(x)", "x = self.encoder(x).detach()"))
plant(NAME, "GL701", "seq2seq_translation",
      ("decoder(encoder_outputs, encoder_hidden, target_tensor)",
       "decoder(encoder_outputs.detach(), encoder_hidden.detach(), target_tensor)"))
plant(NAME, "GL701", "resnet_digits",
      ("out = self.layer2(out)", "out = self.layer2(out).detach()"))
plant(NAME, "GL701", "digits_cnn",
      ("x = torch.flatten(x, 1)", "x = torch.flatten(x.data, 1)"))

NAME = "loss-from-item"
plant(NAME, "GL708", "diabetes_regression",
      (lines(8, "loss.backward()"),
       lines(8, "loss = torch.tensor(loss.item(), requires_grad=True)", "loss.backward()")))
plant(NAME, "GL708", "quickstart",
      (lines(8, "loss = loss_fn(pred, y)"),
       lines(8, "loss = torch.tensor(loss_fn(pred, y).item(), requires_grad=True)")))
plant(NAME, "GL708", "resnet_digits",
      (lines(8, "loss = criterion(outputs, targets)"),
       lines(8, "loss = criterion(outputs, targets).detach().requires_grad_()")))

NAME = "plain-list"
plant(NAME, "GL709", "resnet_digits",
      (lines(8, "return nn.Sequential(*layers)"), lines(8, "return layers")),
      *((lines(8, f"out = self.layer{i}(out)"),
         lines(8, f"for block in self.layer{i}:", "    out = block(out)"))
        for i in (1, 2, 3)))
plant(NAME, "GL709", "transformer_classification",
      ("        layer = nn.TransformerEncoderLayer(\n"
       "            D_MODEL, NUM_HEADS, dim_feedforward=128, dropout=0.1, batch_first=True\n"
       "        )\n"
       "        self.encoder = nn.TransformerEncoder("
       "layer, NUM_LAYERS, enable_nested_tensor=False)\n",
       "        self.layers = [\n"
       "            nn.TransformerEncoderLayer(\n"
       "                D_MODEL, NUM_HEADS, dim_feedforward=128, dropout=0.1, batch_first=True\n"
       "            )\n"
       "            for _ in range(NUM_LAYERS)\n"
       "        ]\n"),
      ("        x = self.encoder(x, src_key_padding_mask=mask)\n",
       "        for layer in self.layers:\n"
       "            x = layer(x, src_key_padding_mask=mask)\n"))
plant(NAME, "GL709", "siamese_contrastive",
      ("        self.fc = nn.Sequential(\n"
       "            nn.Linear(32 * 2 * 2, 64),\n"
       "            nn.ReLU(inplace=True),\n"
       "            nn.Linear(64, 16),\n"
       "        )\n",
       "        self.fc = [nn.Linear(32 * 2 * 2, 64), nn.ReLU(inplace=True), nn.Linear(64, 16)]\n"),
      (lines(8, "return self.fc(x)"),
       lines(8, "for layer in self.fc:", "    x = layer(x)", "return x")))

NAME = "frozen-trunk"
plant(NAME, "GL712", "resnet_digits",
      ("net = net.to(device)\n",
       "net = net.to(device)\n"
       "for part in (net.conv1, net.bn1, net.layer1, net.layer2, net.layer3):\n"
       "    part.requires_grad_(False)\n"))
plant(NAME, "GL712", "hf_trainer",
      (lines(4, "model = BertForSequenceClassification(config)"),
       lines(4, "model = BertForSequenceClassification(config)",
             "for param in model.bert.parameters():", "    param.requires_grad = False")))
plant(NAME, "GL712", "autoencoder",
      ("model = Autoencoder()\n", "model = Autoencoder()\nmodel.encoder.requires_grad_(False)\n"))
plant(NAME, "GL712", "transfer_learning",
      (lines(4, "model_conv.load_state_dict(torch.load(weights, weights_only=True))"), ""),
      because="the trunk that is frozen is a new one: its weights were never loaded")
