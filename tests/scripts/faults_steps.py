"""Faults of the step: modes, rates, schedules, clipping."""

from __future__ import annotations

from tests.scripts.planting import lines, plant

# fmt: off
NAME = "no-step"
plant(NAME, "GL707", "digits_cnn", (lines(8, "optimizer.step()"), ""))
plant(NAME, "GL707", "siamese_contrastive", (lines(12, "optimizer.step()"), ""))
plant(NAME, "GL707", "dcgan", (lines(8, "optimizerG.step()"), ""))
plant(NAME, "GL707", "char_rnn_classification",
      (lines(4, "for p in rnn.parameters():",
             "    p.data.add_(p.grad.data, alpha=-learning_rate)"), ""),
      because="no optimizer, no update by hand: backward after backward for nothing")

NAME = "eval-mode"
plant(NAME, "GL710", "resnet_digits", (lines(4, "net.train()"), lines(4, "net.eval()")))
plant(NAME, "GL710", "digits_cnn", (lines(4, "model.train()"), lines(4, "model.eval()")))
plant(NAME, "GL710", "gcn", (lines(4, "model.train()"), lines(4, "model.eval()")))
plant(NAME, "GL710", "transformer_classification", (lines(8, "model.train()"), ""),
      ("    scheduler = LambdaLR(optimizer, lr_lambda)\n",
       "    scheduler = LambdaLR(optimizer, lr_lambda)\n    evaluate(model, valid_loader)\n"),
      because="evaluated before the first epoch, and never switched back")

NAME = "rate-x1000"
plant(NAME, "GL401", "quickstart", ("model.parameters(), lr=1e-1", "model.parameters(), lr=100"))
plant(NAME, "GL401", "vae", ("model.parameters(), lr=1e-3", "model.parameters(), lr=1"))
plant(NAME, "GL401", "gpt", ("learning_rate = 1e-3", "learning_rate = 1.0"))
plant(NAME, "GL401", "char_rnn_classification", ("learning_rate = 0.005", "learning_rate = 5.0"))

NAME = "rate-by-1e6"
plant(NAME, "GL402", "quickstart", ("model.parameters(), lr=1e-1", "model.parameters(), lr=1e-7"))
plant(NAME, "GL402", "vae", ("model.parameters(), lr=1e-3", "model.parameters(), lr=1e-9"))
plant(NAME, "GL402", "transformer_classification",
      ("LEARNING_RATE = 1e-3", "LEARNING_RATE = 1e-9"))
plant(NAME, "GL402", "char_rnn_classification", ("learning_rate = 0.005", "learning_rate = 5e-9"))

NAME = "scheduler-per-batch"
plant(NAME, "GL412", "digits_cnn",
      ("def train(args, model, device, train_loader, optimizer, epoch):",
       "def train(args, model, device, train_loader, optimizer, scheduler, epoch):"),
      (lines(8, "train(args, model, device, train_loader, optimizer, epoch)"),
       lines(8, "train(args, model, device, train_loader, optimizer, scheduler, epoch)")),
      (lines(8, "optimizer.step()"), lines(8, "optimizer.step()", "scheduler.step()")),
      ("        test(model, device, test_loader)\n        scheduler.step()\n",
       "        test(model, device, test_loader)\n"))
plant(NAME, "GL412", "transfer_learning",
      (lines(24, "optimizer.step()"), lines(24, "optimizer.step()", "scheduler.step()")),
      ('            if phase == "train":\n                scheduler.step()\n', ""))
plant(NAME, "GL412", "resnet_digits",
      (lines(8, "optimizer.step()"), lines(8, "optimizer.step()", "scheduler.step()")),
      ("    test(epoch)\n    scheduler.step()\n", "    test(epoch)\n"),
      because="a cosine meant for the whole run goes down and up every ten batches")

NAME = "clip-1e-3"
plant(NAME, "GL403", "iris", ("max_norm=1.0", "max_norm=1e-3"))
plant(NAME, "GL403", "amp_accumulation", ("type=float, default=1.0)", "type=float, default=1e-3)"))
plant(NAME, "GL403", "quickstart",
      (lines(8, "loss.backward()"),
       lines(8, "loss.backward()", "nn.utils.clip_grad_norm_(model.parameters(), 1e-3)")))

NAME = "clip-before-unscale"
UNSCALED = "            scaler.unscale_(opt)\n"
CLIPPED = "            torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=args.max_norm)\n"
plant(NAME, "GL405", "amp_accumulation", (UNSCALED + CLIPPED, CLIPPED + UNSCALED))
plant(NAME, "GL405", "gpt",
      ('dtype = "float32"\n# ---', 'dtype = "float16"\n# ---'),
      (lines(8, "scaler.unscale_(optimizer)"), ""))
plant(NAME, "GL405", "quickstart",
      ("optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)\n",
       "optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)\n"
       "scaler = torch.amp.GradScaler(device)\n"),
      (lines(8, "loss.backward()", "optimizer.step()"),
       lines(8, "scaler.scale(loss).backward()",
             "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
             "scaler.step(optimizer)", "scaler.update()")))
