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


def train(model: nn.Module, data: TensorDataset) -> nn.Module:
    """Any loop that trains it."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(30):
        for inputs, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(inputs), labels))
            optimizer.step()
    return model


def main() -> None:
    """Train, forget the threes, retrain without them, audit."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 8 - 1, dtype=torch.float32), torch.tensor(digits.target)
    train_set, test_set = TensorDataset(images[:1400], labels[:1400]), TensorDataset(images[1400:], labels[1400:])
    model = train(network(), train_set)

    made = forget(model, train_set, classes=[3])

    without = TensorDataset(images[:1400][labels[:1400] != 3], labels[:1400][labels[:1400] != 3])
    retrained = [train(network(), without) for _ in range(3)]
    result = audit(model, made, train_set, test_set, classes=[3], retrained=retrained)
    for finding in result.findings:
        if finding.name.startswith("accuracy/"):
            numbers = (finding.original, finding.unlearned, finding.retrained)
            print(finding.name, *(f"{number:.3f}" for number in numbers if number is not None))
    print(f"{finding.name:29} {finding.original:.3f} to {finding.unlearned:.3f}; retrained {finding.retrained:.3f}")
    print(
        f"level {result.level}; {made.access['forget'].reads} forgotten rows read; {made.bill.seconds['total']:.2f} s"
    )


if __name__ == "__main__":
    main()
