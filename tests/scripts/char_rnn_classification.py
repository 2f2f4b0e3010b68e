"""Names classified by language with a recurrent network made from scratch."""

import math
import random
import string
import time

import torch
from torch import nn

random.seed(5)
torch.manual_seed(5)

all_letters = string.ascii_letters + " .,;'"
n_letters = len(all_letters)

SYLLABLES = {
    "Italian": (["ba", "ri", "ne", "lo", "zza", "tti", "gio"], ["ni", "ri", "tti", "lli"]),
    "German": (["sch", "ber", "mann", "hof", "kra", "wei", "gr"], ["er", "mann", "burg", "z"]),
    "Japanese": (["ya", "ma", "ki", "shi", "ta", "ko", "hi"], ["moto", "mura", "da", "saki"]),
    "Russian": (["vol", "kov", "dmi", "tri", "ser", "ge", "pav"], ["ov", "sky", "in", "enko"]),
}
all_categories = list(SYLLABLES)
n_categories = len(all_categories)


def make_name(category):
    starts, ends = SYLLABLES[category]
    parts = random.choices(starts, k=random.randint(1, 2))
    return ("".join(parts) + random.choice(ends)).capitalize()


category_lines = {
    category: [make_name(category) for _ in range(300)] for category in all_categories
}


# Turn a line into a <line_length x 1 x n_letters> tensor of one-hot letter vectors
def line_to_tensor(line):
    tensor = torch.zeros(len(line), 1, n_letters)
    for li, letter in enumerate(line):
        tensor[li][0][all_letters.find(letter)] = 1
    return tensor


class RNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()

        self.hidden_size = hidden_size

        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, letter, hidden):
        hidden = torch.tanh(self.i2h(letter) + self.h2h(hidden))
        output = self.h2o(hidden)
        output = self.softmax(output)
        return output, hidden

    def init_hidden(self):
        return torch.zeros(1, self.hidden_size)


n_hidden = 128
rnn = RNN(n_letters, n_hidden, n_categories)


def category_from_output(output):
    _, top_i = output.topk(1)
    category_i = top_i[0].item()
    return all_categories[category_i], category_i


def random_training_example():
    category = random.choice(all_categories)
    line = random.choice(category_lines[category])
    category_tensor = torch.tensor([all_categories.index(category)], dtype=torch.long)
    line_tensor = line_to_tensor(line)
    return category, line, category_tensor, line_tensor


criterion = nn.NLLLoss()

# If you set this too high, it might explode. If too low, it might not learn
learning_rate = 0.005


def train(category_tensor, line_tensor):
    hidden = rnn.init_hidden()

    rnn.zero_grad()

    for i in range(line_tensor.size()[0]):
        output, hidden = rnn(line_tensor[i], hidden)

    loss = criterion(output, category_tensor)
    loss.backward()

    # Add parameters' gradients to their values, multiplied by learning rate
    for p in rnn.parameters():
        p.data.add_(p.grad.data, alpha=-learning_rate)

    return output, loss.item()


def time_since(since):
    now = time.time()
    s = now - since
    m = math.floor(s / 60)
    s -= m * 60
    return f"{m:.0f}m {s:.0f}s"


n_iters = 3000
print_every = 250
plot_every = 100

current_loss = 0
all_losses = []
start = time.time()

for iteration in range(1, n_iters + 1):
    category, line, category_tensor, line_tensor = random_training_example()
    output, loss = train(category_tensor, line_tensor)
    current_loss += loss

    # Print iter number, loss, name and guess
    if iteration % print_every == 0:
        guess, guess_i = category_from_output(output)
        correct = "✓" if guess == category else f"✗ ({category})"
        print(
            f"{iteration} {iteration / n_iters * 100:.0f}% ({time_since(start)}) "
            f"{loss:.4f} {line} / {guess} {correct}"
        )

    # Add current loss avg to list of losses
    if iteration % plot_every == 0:
        all_losses.append(current_loss / plot_every)
        current_loss = 0
print(all_losses)
