"""Sequence classification with a small BERT and the Trainer of transformers."""

import tempfile

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

VOCAB = 200


class Reviews(Dataset):
    """Reviews of 16 to 24 words; a few words tell whether it was liked."""

    def __init__(self, size, seed):
        rng = np.random.default_rng(seed)
        self.items = []
        for _ in range(size):
            label = int(rng.integers(2))
            length = int(rng.integers(16, 25))
            words = rng.integers(60, VOCAB, length)
            places = rng.choice(length, 4, replace=False)
            words[places] = 10 + 20 * label + rng.integers(0, 20, 4)
            ids = np.zeros(26, dtype=np.int64)
            ids[0] = 1
            ids[1 : length + 1] = words
            ids[length + 1] = 2
            mask = (np.arange(26) < length + 2).astype(np.int64)
            self.items.append(
                {
                    "input_ids": torch.from_numpy(ids),
                    "attention_mask": torch.from_numpy(mask),
                    "labels": label,
                }
            )

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def compute_metrics(prediction):
    right = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"accuracy": right.mean()}


def main():
    set_seed(42)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        num_labels=2,
    )
    model = BertForSequenceClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        training_args = TrainingArguments(
            output_dir=folder,
            num_train_epochs=4,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            learning_rate=5e-4,
            warmup_steps=20,
            weight_decay=0.01,
            eval_strategy="epoch",
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=Reviews(800, seed=0),
            eval_dataset=Reviews(200, seed=1),
            compute_metrics=compute_metrics,
        )
        trainer.train()
        print(trainer.evaluate())


if __name__ == "__main__":
    main()
