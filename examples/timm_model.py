"""Forget a class of a network of timm, with timm's own transform for its inputs.

python examples/timm_model.py
"""

import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform, resolve_data_config
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from expunge import audit, forget
from expunge.audits.accuracy import Accuracy


class Digits(Dataset[tuple[Tensor, int]]):
    """Handwritten digits as colour images; any data set that gives images and labels does."""

    def __init__(self, rows: slice, model: nn.Module) -> None:
        digits = load_digits()
        self.images = [Image.fromarray((16 * image).clip(max=255).astype("uint8")) for image in digits.images[rows]]
        self.targets = digits.target[rows].tolist()  # spares decoding every image to find its class
        self.transform = create_transform(**(resolve_data_config(model=model) | {"input_size": (3, 16, 16)}))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index].convert("RGB")), self.targets[index]


def train(model: nn.Module, data: Digits, epochs: int) -> None:
    """Any loop that trains it; a network that timm has weights for (`pretrained=True`) needs less of it."""
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model.train()(inputs), labels))
            optimizer.step()


def main(rows: int = 1000, epochs: int = 3) -> None:
    """Train a small ResNet on digits, and let it forget the threes."""
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10, pretrained=False)
    train_set, test_set = Digits(slice(rows), model), Digits(slice(1400, None), model)
    train(model, train_set, epochs)
    made = forget(model, train_set, classes=[3], method="finetune")
    for finding in audit(model, made, train_set, test_set, classes=[3], audits=[Accuracy()]).findings:
        print(f"{finding.name:30} {finding.original:.3f} to {finding.unlearned:.3f}")
    print(f"{made.access['forget'].reads} reads of forgotten rows; {made.bill.seconds['total']:.2f} s")


if __name__ == "__main__":
    main()
