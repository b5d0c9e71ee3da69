"""Tracking: losses by step and final findings, sent to the experiment trackers that Lightning has loggers for.

Off unless asked for, and never part of a result. What is tracked: ``STAGE/loss`` of every step of every stage that
trains (a stage that comes again is ``STAGE 2``), ``cost/...`` of each forgetting, and ``finding/NAME/MODEL`` of each
audited case. Models that other processes train (``--jobs``) are not tracked.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor

from expunge.errors import SettingsError, did_you_mean, expecting
from expunge.finding import Finding

FOLDER = Path("runs/tracked")
"""Where a tracker that writes files writes them, each command in a ``version_N`` of its own."""
NAME = "expunge"
PACKAGES = {
    "csv": "lightning-fabric",
    "tensorboard": "tensorboard",
    "wandb": "lightning wandb",
    "mlflow": "lightning mlflow",
}
"""What each tracker needs."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """The loggers of a command; none by default."""

    loggers: tuple[Logger, ...] = ()
    _come: Counter[str] = field(default_factory=Counter, repr=False)

    def curve(self, stage: str) -> Callable[[int, Tensor], None]:
        """Begin the curve of a stage; return what takes note of a step, by its number from 1, and its loss."""
        if not self.loggers:
            return lambda step, loss: None
        name = self._numbered(stage)
        return lambda step, loss: self._log({f"{name}/loss": float(loss)}, step)

    def cost(self, seconds: Mapping[str, float], flops: int) -> None:
        """Take note of what a forgetting cost: seconds by stage, and floating-point operations."""
        told = {f"cost/{stage}/seconds": value for stage, value in seconds.items()}
        self._log({**told, "cost/flops": float(flops)}, self._next("cost"))

    def findings(self, findings: Sequence[Finding]) -> None:
        """Take note of the findings of a case; numbers that are not known are left out."""
        told = {
            f"finding/{finding.name}/{model}": value
            for finding in findings
            for model in ("original", "unlearned", "retrained")
            if (value := getattr(finding, model)) is not None
        }
        self._log(told, self._next("finding"))

    def close(self) -> None:
        """Write what is not written yet."""
        for logger in self.loggers:
            logger.finalize("success")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(dict(values), step)

    def _next(self, what: str) -> int:
        self._come[what] += 1
        return self._come[what]

    def _numbered(self, stage: str) -> str:
        number = self._next(f"stage {stage}")
        return stage if number == 1 else f"{stage} {number}"


UNTRACKED = Tracking()


def open_tracking(trackers: Sequence[str], folder: Path = FOLDER) -> Tracking:
    """Return the tracking of a command.

    ``wandb`` and ``mlflow`` open their run at once; the others write nothing before there is something to write.

    Args:
        trackers: Any of ``csv``, ``tensorboard``, ``wandb`` and ``mlflow``.
        folder: Where those that write files write them.

    Raises:
        SettingsError: A tracker is unknown, or a package that it needs is not installed, or it cannot open its run.
    """
    return Tracking(loggers=tuple(_logger(name, folder) for name in dict.fromkeys(trackers)))


def _logger(tracker: str, folder: Path) -> Logger:
    if tracker not in PACKAGES:
        known = ", ".join(PACKAGES)
        raise SettingsError(f"expected --track {known}, got {tracker!r}{did_you_mean(tracker, PACKAGES)}")
    try:
        if tracker == "csv":
            return CSVLogger(folder / tracker, name=NAME)
        if tracker == "tensorboard":
            return TensorBoardLogger(folder / tracker, name=NAME)
        # Fabric has no loggers of these two; Lightning's are of the same kind
        from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

        folder.mkdir(parents=True, exist_ok=True)
        if tracker == "wandb":
            return _opened(WandbLogger(project=NAME, save_dir=folder), tracker)
        store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        return _opened(MLFlowLogger(experiment_name=NAME, tracking_uri=store), tracker)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"expected what --track {tracker} needs, got: {reason}: pip install {PACKAGES[tracker]}"
        ) from error


def _opened(logger: Any, tracker: str) -> Logger:
    """Return a logger whose run is open, so that a missing login is told before any work."""
    with expecting(f"expected --track {tracker} to open its run", SettingsError):
        logger.experiment  # noqa: B018  # opens it
    return logger  # type: ignore[no-any-return]
