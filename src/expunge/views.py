"""Views: what a person looks at beside the findings: where forgotten rows go, and maps of the features.

A map shows what the head reads of the same rows in the original, the unlearned and the first retrained model. Each is
drawn in its own two principal directions (Hotelling, 1933), turned and mirrored to lie as nearly as it can over the
original's (orthogonal Procrustes; Schönemann, 1966), since directions mean nothing and only who lies near whom does.
It holds coordinates, not inputs. Rows are test rows; where a request of single rows has none to forget, training rows.

Asked for, UMAP draws the same rows by who is near whom (McInnes, Healy and Melville, 2018,
https://arxiv.org/abs/1802.03426), and `expunge.overlays` where the networks look.

Streams: ``views/rows``, ``views/umap``.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.errors import SettingsError
from expunge.overlays import overlays
from expunge.result import Answers, FeatureMap, Overlay, Plane, Views
from expunge.taps import HEAD

FORGOTTEN, KEPT = 200, 400
"""The most points of either kind."""
APART = 0.8
"""How far apart UMAP holds near rows: with its own 0.1 a group is a dot on a map of this size."""
Points = Float[np.ndarray, "rows 2"]
Projection = Callable[[Float[np.ndarray, "rows width"]], tuple[Points, float | None]]
View = Literal["gradcam", "umap"]
"""What is drawn only if asked for: it takes a package of its own, and Grad-CAM shows example images."""
PACKAGES: dict[View, tuple[str, str]] = {"gradcam": ("captum", "captum"), "umap": ("umap", "umap-learn")}
"""Module and package that each view takes."""


def check_views(views: Sequence[View]) -> None:
    """Refuse views whose packages are not installed.

    Raises:
        SettingsError: One is not.
    """
    for view in views:
        module, package = PACKAGES[view]
        if find_spec(module) is None:
            raise SettingsError(f"expected {package} for the view {view}, got none: pip install {package}")


def look(case: Case, asked: Sequence[View] = ()) -> Views:
    """Return what there is to look at in a case; no model is run but for Grad-CAM."""
    part: Part = "forget" if case.missing("forget_test") else "forget_test"
    features = feature_map(case, part, principal)
    neighbours: FeatureMap | None = None
    drawn: tuple[Overlay, ...] = ()
    left_out = []
    if "umap" in asked:
        seed = case.runtime.generator("views/umap").initial_seed() % 2**32
        with case.runtime.progress("umap", 1):
            neighbours = feature_map(case, part, lambda values: neighbourly(values, seed))
        if neighbours is None:
            left_out.append("Maps by UMAP: there are no features, or too few rows.")
    if "gradcam" in asked:
        drawn, reason = overlays(case, part)
        if reason is not None:
            left_out.append(f"Grad-CAM: {reason}.")
    return Views(
        part=part,
        answers=answers(case, part),
        features=features,
        neighbours=neighbours,
        overlays=drawn,
        left_out=tuple(left_out),
    )


def answers(case: Case, part: Part) -> tuple[Answers, ...]:
    """Return how often each model names each class, for each true class that has rows in a part."""
    labels = case.original.labels[part]
    classes = len(case.split.label_names)

    def counts(evidence: Evidence, label: int) -> list[int]:
        named = evidence.logits[part][labels == label].argmax(dim=1)
        counted: list[int] = named.bincount(minlength=classes).tolist()
        return counted

    return tuple(
        Answers(
            label=label,
            original=tuple(counts(case.original, label)),
            unlearned=tuple(counts(case.unlearned, label)),
            retrained=tuple(np.mean([counts(one, label) for one in case.retrained], axis=0).tolist())
            if case.retrained
            else (),
        )
        for label in sorted(set(labels.tolist()))
    )


def feature_map(case: Case, part: Part, project: Projection) -> FeatureMap | None:
    """Return the map of rows of a part and of retained test rows; None without features, or two of them that vary."""
    if case.unseen(part, "retain_test"):
        return None
    generator = case.runtime.generator("views/rows")
    chosen: dict[Part, torch.Tensor] = {}
    wanted: tuple[tuple[Part, int], ...] = ((part, FORGOTTEN), ("retain_test", KEPT))
    for each, most in wanted:
        chosen[each] = torch.randperm(len(case.original.feature_labels[each]), generator=generator)[:most]
    shown = [case.original, case.unlearned, *case.retrained[:1]]
    clouds = [torch.cat([one.features[HEAD][each][rows] for each, rows in chosen.items()]) for one in shown]
    if min(min(cloud.shape) for cloud in clouds) < 2 or not all(cloud.var(dim=0).sum() > 0 for cloud in clouds):
        return None
    first, spread = project(clouds[0].double().numpy())
    planes = [_plane(first, spread)]
    for cloud in clouds[1:]:
        points, spread = project(cloud.double().numpy())
        planes.append(_plane(points @ orthogonal_procrustes(points, first)[0], spread))
    return FeatureMap(
        part=part,
        forgotten=len(chosen[part]),
        labels=tuple(
            label for each, rows in chosen.items() for label in case.original.feature_labels[each][rows].tolist()
        ),
        original=planes[0],
        unlearned=planes[1],
        retrained=planes[2] if len(planes) > 2 else None,
    )


def principal(features: Float[np.ndarray, "rows width"]) -> tuple[Points, float]:
    """Return features in their two principal directions, and the share of their variance that these hold."""
    analysis = PCA(n_components=2, svd_solver="full")
    points: Points = analysis.fit_transform(features)
    return points, float(analysis.explained_variance_ratio_.sum())


def neighbourly(features: Float[np.ndarray, "rows width"], seed: int) -> tuple[Points, None]:
    """Return features by UMAP in two dimensions, around their middle."""
    from umap import UMAP

    near = min(15, len(features) - 1)  # its own default, where there are so many
    threads = torch.get_num_threads()
    points: Points = UMAP(n_neighbors=near, min_dist=APART, init="pca", random_state=seed, n_jobs=1).fit_transform(
        features
    )
    torch.set_num_threads(threads)  # numba, which UMAP is compiled by, sets OpenMP's, on which last bits hang
    return points.astype(np.float64) - points.mean(axis=0), None


def _plane(points: Points, spread: float | None) -> Plane:
    scaled = np.rint(1000 * points / np.abs(points).max()).astype(int)
    return Plane(x=tuple(scaled[:, 0].tolist()), y=tuple(scaled[:, 1].tolist()), spread=spread)
