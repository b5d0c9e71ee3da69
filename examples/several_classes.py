"""Forget several classes at once, and compare the cost with forgetting one.

python examples/several_classes.py
"""

from expunge.data import split
from expunge.datasets.shapes import Shapes
from expunge.experiment import train
from expunge.forgetting import run_method
from expunge.methods.unsir import Unsir
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.runtime import open_runtime
from expunge.training import Training, predict


def main(rows: int = 2000, epochs: int = 10) -> None:
    """Train one network on twenty classes and forget one, four and ten of them."""
    data = Shapes(classes=20, size=12, channels=3, train_rows=rows, test_rows=400, noise=0.3).load()
    runtime = open_runtime(seed=0)
    model = train(Network(name="small_cnn"), data, Training(epochs=epochs), runtime)
    for count in (1, 4, 10):
        parts = split(data, Request(classes=tuple(range(count))))
        made = run_method(Unsir(), model, parts, runtime, rebuild(model))
        kept, labels = predict(made.model, parts["retain_test"], runtime)
        gone, forgotten = predict(made.model, parts["forget_test"], runtime)
        print(
            f"{count:2} classes: {made.bill.flops / 1e9:5.1f} GFLOP, {made.access['forget'].reads} forgotten reads, "
            f"retained {(kept.argmax(1) == labels).double().mean():.3f}, "
            f"forgotten {(gone.argmax(1) == forgotten).double().mean():.3f}"
        )


if __name__ == "__main__":
    main()
