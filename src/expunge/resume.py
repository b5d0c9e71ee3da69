"""Resume: open the journal of a command, under everything that decides its result."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from expunge.fingerprints import glance
from expunge.journal import journal_of
from expunge.result import environment
from expunge.rows import Rows
from expunge.runtime import Runtime


@contextmanager
def resumable(runtime: Runtime, out: Path, told: Mapping[str, Any], rows: tuple[Rows, ...]) -> Iterator[Runtime]:
    """Give the runtime with the journal of the command that makes `out`.

    Args:
        runtime: Where; its seed, precision, device and threads decide the result too.
        out: What the command makes.
        told: The command with all its settings, and the hashes of the models that it starts from.
        rows: The data; all labels and a sample of the inputs count.

    Raises:
        OutputError: Another process works on the same output.
        StoppedError: The user has stopped it; says how to go on.
    """

    def key() -> dict[str, Any]:
        return {
            **told,
            "seed": runtime.seed,
            "precision": runtime.precision,
            "threads": torch.get_num_threads(),
            "data": [glance(one) for one in rows],
            **environment(str(runtime.device)),
        }

    def in_any(holds: bool) -> bool:
        return runtime.highest(holds) > 0

    with journal_of(out, key, runtime.tell, writes=runtime.fabric.global_rank == 0, in_any=in_any) as journal:
        yield replace(runtime, journal=journal)
