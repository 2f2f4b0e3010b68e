"""A small BERT in the Trainer of transformers, watched by a callback.

python examples/with_transformers.py     # prints the report, and raises if it is not healthy
"""

import tempfile

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)  # fmt: skip

from gradlint.integrations.transformers import GradlintCallback

set_seed(0)
config = BertConfig(
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=32, num_labels=2,
)  # fmt: skip
words = torch.randint(4, 60, (640, 12))
words[::2, torch.randint(12, (1,))] = 5  # every second text has the word that tells
data = [{"input_ids": row, "labels": int((row == 5).any())} for row in words]

watched = GradlintCallback()
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model=BertForSequenceClassification(config),
        args=TrainingArguments(
            folder, num_train_epochs=2, per_device_train_batch_size=32, learning_rate=1e-3,
            warmup_steps=5, logging_steps=10, save_strategy="no", report_to="none",
            use_cpu=True, disable_tqdm=True,
        ),
        train_dataset=data,
        callbacks=[watched],
    )  # fmt: skip
    trainer.train()

print(watched.report)
watched.report.raise_for("warning")
