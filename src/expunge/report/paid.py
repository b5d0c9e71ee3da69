"""Paid: what forgetting cost beside training anew, in passes over the data first and in seconds second."""

from expunge.report.wording import clip, decimal, scaled, seconds
from expunge.result import Result


def retraining_passes(result: Result) -> float | None:
    """Return how many passes over the whole training set one retraining takes; None if the result does not say.

    It goes over the retained rows as often as the original's training went over all.
    """
    training = result.experiment.get("training")
    epochs = training.get("epochs") if isinstance(training, dict) else None
    kept, forgotten = result.rows.get("retain"), result.rows.get("forget")
    if not isinstance(epochs, int) or not kept or forgotten is None:
        return None
    return epochs * kept / (kept + forgotten)


def headline(result: Result) -> tuple[str, str, str]:
    """Return the passes over the training set, what they are beside those of a retraining, and the seconds."""
    own, anew = result.cost.epoch_equivalents if result.cost else None, retraining_passes(result)
    known = result.cost.seconds if result.cost else {}
    total, retrain = known.get("total"), known.get("retrain")
    beside = f"a retraining takes {decimal(anew)}"
    if total is not None:
        beside += f"; took {seconds(total)}" + (f", a retraining {seconds(retrain)}" if retrain is not None else "")
    return decimal(own), "passes over the training data", beside


def lines(result: Result) -> list[tuple[str, str]]:
    """Return what is paid, a name and a number each."""
    cost, anew = result.cost, retraining_passes(result)
    stages = {name: duration for name, duration in (cost.seconds if cost else {}).items() if name != "retrain"}
    total = stages.pop("total", None)
    return [
        ("Passes over the training set", decimal(cost.epoch_equivalents if cost else None)),
        ("of one retraining", decimal(anew)),
        ("Operations", scaled(float(cost.flops) if cost else None, "FLOP")),
        ("Seconds in all", seconds(total)),
        *((f"of which {clip(name)}", seconds(duration)) for name, duration in stages.items()),
        ("of one retraining", seconds(cost.seconds.get("retrain") if cost else None)),
        ("Most memory of the process", scaled(float(cost.peak_memory_bytes) if cost else None, "B")),
    ]


def told(result: Result) -> str:
    """Return what the passes and the seconds mean."""
    text = "Passes are counted operations, the same on any machine; those of a retraining follow from its epochs."
    cost = result.cost
    if cost is None or cost.seconds.get("retrain") is None:
        return f"{text} Seconds are by the clock on the wall."
    text += (
        " Seconds are by the clock on the wall, those of a retraining the mean of the retrained networks, each timed "
        "as it was trained, with whatever else the machine was at."
    )
    if cost.reused:
        many = "One of them" if cost.reused == 1 else f"{cost.reused} of them"
        text += f" {many} came from the cache with the seconds of that day, perhaps under another load or elsewhere."
    return text
