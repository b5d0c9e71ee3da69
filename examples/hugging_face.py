"""Forget a class of an image classifier of Hugging Face transformers, and save it so that transformers loads it.

python examples/hugging_face.py
"""

import tempfile

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from expunge import audit, forget
from expunge.audits.accuracy import Accuracy


def digits(rows: int) -> tuple[TensorDataset, TensorDataset]:
    """Return handwritten digits, -1 to 1, as training and test rows."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    return TensorDataset(images[:rows], labels[:rows]), TensorDataset(images[1400:], labels[1400:])


def train(model: ViTForImageClassification, data: TensorDataset, epochs: int) -> None:
    """Any loop that trains it; transformers computes the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(epochs):
        for pixel_values, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            torch.autograd.backward(model(pixel_values=pixel_values, labels=labels).loss)
            optimizer.step()


def main(rows: int = 1400, epochs: int = 15) -> None:
    """Train a tiny transformer on digits, let it forget the threes, save and load it."""
    torch.manual_seed(0)
    small = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **small))
    train_set, test_set = digits(rows)
    train(model, train_set, epochs)

    made = forget(model, train_set, classes=[3], method="finetune")  # takes and gives a model of transformers
    for finding in audit(model, made, train_set, test_set, classes=[3], audits=[Accuracy()]).findings:
        print(f"{finding.name:30} {finding.original:.3f} to {finding.unlearned:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        made.model.save_pretrained(folder)  # type: ignore[operator]
        again = AutoModelForImageClassification.from_pretrained(folder)
    print(f"{type(again).__name__} of {again.num_parameters():,} weights loaded again")


if __name__ == "__main__":
    main()
