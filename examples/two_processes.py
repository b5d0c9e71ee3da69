"""Train and forget with two processes on one machine; on CPUs they talk by gloo, on GPUs by NCCL.

    python examples/two_processes.py

Each command starts its second process by itself; `torchrun` and SLURM can do so instead, see docs/running.md. The two
share every batch, so that nothing else has to be changed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from expunge.checkpoint import load_model
from expunge.data import Request, split
from expunge.datasets.digits import Digits
from expunge.runtime import open_runtime
from expunge.training import predict


def expunge(*words: str) -> None:
    """Run a command in two processes, and stop if it fails."""
    two = ["--data", "digits", "--devices", "2", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "expunge", *words, *two], check=True)  # noqa: S603  # words of this file


def main(epochs: int = 15) -> None:
    """Let a network of digits forget the threes, and print how often it is right."""
    parts, runtime = split(Digits().load(), Request(classes=("3",))), open_runtime(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        original, unlearned = f"{folder}/original", f"{folder}/unlearned"
        # without batch normalisation nothing has to be said of its statistics (--batch-norm)
        expunge("train", "--network", "mlp", "--set", f"epochs={epochs}", "--out", original)
        expunge("forget", original, "--classes", "3", "--method", "finetune", "--out", unlearned)
        for name in (original, unlearned):
            for part in ("retain_test", "forget_test"):
                logits, labels = predict(load_model(Path(name)).model, parts[part], runtime)
                print(f"{Path(name).name:9} {part:11} {(logits.argmax(1) == labels).double().mean():.3f}")
        record = json.loads((Path(unlearned) / "forget.json").read_text())
    print("rows that both read together:", record["access"]["retain"]["rows"])


if __name__ == "__main__":
    main()
