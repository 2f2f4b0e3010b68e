"""Text classification with a transformer encoder, AdamW and a warm-up."""

import math
import random

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

PAD = 0
VOCAB_SIZE = 300
D_MODEL = 64
NUM_HEADS = 4
NUM_LAYERS = 2
NUM_CLASSES = 4
BATCH_SIZE = 32
EPOCHS = 5
LEARNING_RATE = 1e-3
WARMUP_STEPS = 30


def make_texts(count, rng):
    """Make texts of frequent words and a few words of one topic."""
    texts = []
    for _ in range(count):
        label = rng.randrange(NUM_CLASSES)
        length = rng.randrange(10, 33)
        words = [rng.randrange(101, VOCAB_SIZE) for _ in range(length)]
        for place in rng.sample(range(length), 4):
            words[place] = 1 + label * 25 + rng.randrange(25)
        texts.append((words, label))
    return texts


def collate(batch):
    longest = max(len(words) for words, _ in batch)
    tokens = torch.full((len(batch), longest), PAD)
    for row, (words, _) in enumerate(batch):
        tokens[row, : len(words)] = torch.tensor(words)
    labels = torch.tensor([label for _, label in batch])
    return tokens, labels


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout=0.1, max_len=128):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(1, max_len, d_model)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return self.dropout(x + self.pe[:, : x.size(1)])


class TransformerClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, D_MODEL, padding_idx=PAD)
        self.positions = PositionalEncoding(D_MODEL)
        layer = nn.TransformerEncoderLayer(
            D_MODEL, NUM_HEADS, dim_feedforward=128, dropout=0.1, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, NUM_LAYERS, enable_nested_tensor=False)
        self.classifier = nn.Linear(D_MODEL, NUM_CLASSES)

    def forward(self, tokens):
        mask = tokens == PAD
        x = self.positions(self.embedding(tokens) * math.sqrt(D_MODEL))
        x = self.encoder(x, src_key_padding_mask=mask)
        x = x.masked_fill(mask.unsqueeze(-1), 0.0).sum(1) / (~mask).sum(1, keepdim=True)
        return self.classifier(x)


def evaluate(model, loader):
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for tokens, labels in loader:
            correct += (model(tokens).argmax(1) == labels).sum().item()
            total += labels.numel()
    return correct / total


def main():
    torch.manual_seed(42)
    rng = random.Random(42)
    train_loader = DataLoader(
        make_texts(1500, rng), batch_size=BATCH_SIZE, shuffle=True, collate_fn=collate
    )
    valid_loader = DataLoader(make_texts(300, rng), batch_size=BATCH_SIZE, collate_fn=collate)

    model = TransformerClassifier()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    total_steps = EPOCHS * len(train_loader)

    def lr_lambda(step):
        if step < WARMUP_STEPS:
            return step / WARMUP_STEPS
        return max(0.0, (total_steps - step) / (total_steps - WARMUP_STEPS))

    scheduler = LambdaLR(optimizer, lr_lambda)

    for epoch in range(EPOCHS):
        model.train()
        running_loss = 0.0
        for tokens, labels in train_loader:
            optimizer.zero_grad()
            logits = model(tokens)
            loss = criterion(logits, labels)
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            running_loss += loss.item()
        accuracy = evaluate(model, valid_loader)
        print(
            f"epoch {epoch + 1}: train loss {running_loss / len(train_loader):.4f}, "
            f"valid accuracy {accuracy:.3f}"
        )


if __name__ == "__main__":
    main()
