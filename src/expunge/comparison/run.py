"""Compare: run several methods, and the two controls, in the same worlds; each world's models are trained once for all.

For every world (a request and a seed of one data set, network and training):

1. Train one original, and one more retrained network than there are references. Both come from the cache if there is
   one; requests of one seed share their original.
2. Run each method, and `head_mask`; the last retrained network, held out, takes the place of an unlearned one.
3. Audit each beside the same original and references, and write ``cells/WORLD/NAME/result.json``.

A cell that is there already with the same settings and versions is not run again, so an interrupted comparison goes on
where it stopped, and one with more seeds or methods adds to what there is.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from expunge.cache import Cache
from expunge.case import Method
from expunge.comparison.cells import world_name
from expunge.comparison.record import CONTROLS, RETRAINED, Comparison
from expunge.comparison.summary import compare as compare_results
from expunge.comparison.worlds import Models, run_cell, train_models
from expunge.data import Data, split
from expunge.errors import DataError, OutputError, SettingsError
from expunge.experiment import Experiment, to_values
from expunge.files import RESULT, check_free, write_text
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.population import HERE, Workers
from expunge.provenance import request_values
from expunge.report.comparison_page import render
from expunge.request import Request
from expunge.result import Result, environment, read
from expunge.runtime import Runtime
from expunge.settings import describe

CELLS = "cells"
JSON = "comparison.json"
PAGE = "comparison.html"
Say = Callable[[str], None]


def run_comparison(
    experiments: Mapping[str, Experiment],
    out: Path,
    runtime: Runtime,
    *,
    seeds: Sequence[int] = (),
    classes: str | None = None,
    overwrite: bool = False,
    cache: Cache | None = None,
    workers: Workers = HERE,
    say: Say = lambda text: None,
) -> Comparison:
    """Run the methods of several experiments in the same worlds, write all results and compare them.

    Args:
        experiments: By name; all alike but for method, request and seed. Every method runs in every world.
        out: Folder for ``cells/``, ``comparison.json`` and ``comparison.html``.
        runtime: Where; each world has its own seed.
        seeds: Seeds of the worlds; none for those of the experiments.
        classes: ``each``, or classes separated by commas, each of which is forgotten in a world of its own; None for
            the requests of the experiments.
        overwrite: Run again what is there.
        cache: Where to find and keep originals and retrained networks; None trains them anew, once for each world.
        workers: Who trains.
        say: Is told of every cell that is done.

    Raises:
        ExpungeError: Something that the caller can put right; cells that are done stay.
    """
    first = _checked(experiments)
    data = first.dataset.load()
    requests = _requests(experiments, classes, data)
    worlds = [(request, seed) for seed in seeds or _own_seeds(experiments) for request in requests]
    _prepare(out, overwrite=overwrite)
    methods: dict[str, Method] = {name: one.method for name, one in experiments.items()}
    methods |= {"head_mask": HeadMask(), RETRAINED: Retrain(training=first.training)}
    results: dict[str, Result] = {}
    cells = len(worlds) * len(methods)
    with tempfile.TemporaryDirectory() as folder, runtime.progress("comparison", cells) as advance:
        models = cache or Cache(Path(folder))
        for request, seed in worlds:
            world = replace(first, request=request, seed=seed)
            for path, result in _run_world(world, methods, data, out, runtime, models, workers):
                results[str(path)] = result
                say(f"{path.parent.parent.name}  {path.parent.name}: {result.level}")
                advance(1)
    return _write(compare_results(results), out)


def compare_folders(sources: Sequence[Path], out: Path, *, overwrite: bool) -> Comparison:
    """Compare finished results: files, or folders with ``result.json`` files anywhere below.

    Raises:
        DataError: A source is missing or holds no result, or the results cannot be compared.
        OutputError: The comparison cannot be written.
    """
    for name in (JSON, PAGE):
        check_free(out / name, overwrite=overwrite)
    paths = [path for source in sources for path in _results_in(source)]
    return _write(compare_results({str(path): read(Result, path) for path in paths}), out)


def _results_in(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"expected a result.json or a folder with some, got {source}, which is not there")
    found: list[Path] = []
    try:
        for folder, folders, files in os.walk(source, onerror=_refuse):
            folders.sort()
            found += [Path(folder) / name for name in files if name == RESULT]
    except OSError as error:
        raise DataError(f"expected a folder that can be read, got {error.filename}: {error.strerror}") from error
    if not found:
        raise DataError(f"expected a result.json in {source} or below, got none")
    return found


def _refuse(error: OSError) -> None:
    raise error


def _write(comparison: Comparison, out: Path) -> Comparison:
    write_text(out / JSON, comparison.to_json(), overwrite=True)
    write_text(out / PAGE, render(comparison), overwrite=True)
    return comparison


def _checked(experiments: Mapping[str, Experiment]) -> Experiment:
    """Return the first experiment, after a check that all are alike but for method, request and seed."""
    if not experiments:
        raise SettingsError("expected experiments to compare, got none")
    (name, first), *others = experiments.items()
    told: dict[str, str] = {}
    for other_name, other in experiments.items():
        if other.corruption or other.head != "keep":
            what = "without a corruption" if other.corruption else "that keep the head"
            raise SettingsError(
                f"expected experiments {what} to compare, got one in {other_name}: run it by itself, "
                "or compare finished runs"
            )
        method = describe(other.method)
        if method["name"] in CONTROLS:
            raise SettingsError(
                f"expected a method that is no control, got {method['name']} in {other_name}: the controls "
                f"{' and '.join(CONTROLS)} are part of every comparison"
            )
        if other_name in CONTROLS:
            raise SettingsError(f"expected an experiment with another name than a control, got {other_name}: rename it")
        if str(method) in told:
            raise SettingsError(f"expected different methods, got the same in {told[str(method)]} and {other_name}")
        told[str(method)] = other_name
    for other_name, other in others:
        for field in fields(Experiment):
            same = getattr(first, field.name) == getattr(other, field.name)
            if field.name not in ("method", "request", "seed") and not same:
                raise SettingsError(
                    f"expected experiments with the same {field.name}, got others in {name} and {other_name}: "
                    "compare them apart"
                )
    return first


def _own_seeds(experiments: Mapping[str, Experiment]) -> list[int]:
    return sorted({one.seed for one in experiments.values()})


def _requests(experiments: Mapping[str, Experiment], classes: str | None, data: Data) -> list[Request]:
    """Return the requests of all worlds, classes as indices, each once."""
    if classes is None:
        asked = [one.request for one in experiments.values()]
    elif classes.strip() == "each":
        asked = [Request(classes=(index,)) for index in range(len(data.label_names))]
    else:
        words = [word.strip() for word in classes.split(",")]
        if not all(words):
            raise SettingsError(f"expected each, or classes separated by commas, got {classes!r}")
        asked = [Request(classes=(word,)) for word in words]
    return list(dict.fromkeys(request.resolve(data.label_names, data.train) for request in asked))


def _prepare(out: Path, *, overwrite: bool) -> None:
    """Make room for the cells: none of before if they are to be run again, and nothing else at all."""
    cells = out / CELLS
    if not cells.is_dir():
        check_free(out, overwrite=overwrite)
    elif overwrite:
        try:
            shutil.rmtree(cells)
        except OSError as error:
            raise OutputError(f"expected to remove {cells}, got: {error.strerror or error}") from error


def _run_world(
    world: Experiment,
    methods: Mapping[str, Method],
    data: Data,
    out: Path,
    runtime: Runtime,
    cache: Cache,
    workers: Workers,
) -> Iterator[tuple[Path, Result]]:
    """Yield the results of a world with their files; models are trained when the first cell is missing."""
    runtime = runtime.fresh(seed=world.seed)
    parts = split(data, world.request)
    folder = out / CELLS / world_name(request_values(parts.request), world.seed)
    models: Models | None = None
    for name, method in methods.items():
        if world.request.rows and isinstance(method, HeadMask):
            continue  # single rows have no output to hide
        cell = replace(world, method=method)
        told, path = to_values(cell, parts), folder / name / RESULT
        result = _done(path, told, runtime)
        if result is None:
            models = models or train_models(world, data, parts, runtime, cache, workers)
            result = run_cell(cell, told, models, parts, runtime, cache, workers)
            write_text(path, result.to_json(), overwrite=False)
        yield path, result


def _done(path: Path, told: Mapping[str, Any], runtime: Runtime) -> Result | None:
    """Return the result of a cell that has been run, or None."""
    if not path.exists():
        return None
    result = read(Result, path)
    for what, one, other in (
        ("settings", result.experiment, told),
        ("versions", result.environment, environment(str(runtime.device))),
    ):
        if one != other:
            raise OutputError(
                f"expected the result of this experiment or none at {path}, got one with other {what}: "
                "choose another --out, or add --overwrite"
            )
    return result
