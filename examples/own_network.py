"""Forget a class of your own network, trained by your own loop, and audit it beside retrained ones.

python examples/own_network.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from expunge import audit, forget


def network() -> nn.Module:
    """Any network that maps inputs to logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def train(model: nn.Module, data: TensorDataset, epochs: int) -> nn.Module:
    """Any loop that trains it."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(inputs), labels))
            optimizer.step()
    return model


def main(rows: int = 1400, epochs: int = 30) -> None:
    """Train, forget the threes, retrain without them, audit."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 8 - 1, dtype=torch.float32), torch.tensor(digits.target)
    train_set, test_set = TensorDataset(images[:rows], labels[:rows]), TensorDataset(images[1400:], labels[1400:])
    model = train(network(), train_set, epochs)

    made = forget(model, train_set, classes=[3])

    kept = labels[:rows] != 3
    without = TensorDataset(images[:rows][kept], labels[:rows][kept])
    retrained = [train(network(), without, epochs) for _ in range(3)]
    result = audit(model, made, train_set, test_set, classes=[3], retrained=retrained)
    for finding in result.findings:
        if finding.name.startswith("accuracy/"):
            numbers = (finding.original, finding.unlearned, finding.retrained)
            print(finding.name, *(f"{number:.3f}" for number in numbers if number is not None))
    print(
        f"level {result.level}; {made.access['forget'].reads} forgotten rows read; {made.bill.seconds['total']:.2f} s"
    )


if __name__ == "__main__":
    main()
