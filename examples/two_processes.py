"""Train, forget, retrain and audit with two processes; on CPUs they talk by gloo, on GPUs by NCCL.

    python examples/two_processes.py

The command starts its second process by itself; `torchrun` and SLURM can do so instead, see docs/running.md. The two
share every batch, so that nothing else has to be changed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

# without batch normalisation nothing has to be said of its statistics (--batch-norm)
EXPERIMENT = """
references = 2
audits = ["accuracy"]
[network]
name = "mlp"
[request]
classes = [3]
[method]
name = "finetune"
"""


def main(epochs: int = 15) -> None:
    """Let a network of digits forget the threes, and print how often it is right."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.toml"
        file.write_text(EXPERIMENT)
        words = ["run", str(file), "--out", f"{folder}/out", "--set", f"training.epochs={epochs}", "--no-cache"]
        two = ["--devices", "2", "--device", "cpu"]
        subprocess.run([sys.executable, "-m", "expunge", *words, *two], check=True)  # noqa: S603  # words of this file
        result = json.loads((Path(folder) / "out" / "result.json").read_text())
    print("rows that both read together:", result["access"]["retain"]["rows"])


if __name__ == "__main__":
    main()
