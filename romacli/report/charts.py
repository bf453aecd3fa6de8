"""The figures of a report, as plotly's values: what is drawn, in which units. Colours of text and paper are the page's.

Takes facts and a model, knows no files. plotly loads with the first figure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from romacli.colmap.poses import Pose
from romacli.colmap.reading import Model
from romacli.errors import InputError

from .facts import Facts, PairRow

# Bounds on what the file holds; the rest is in the JSON.
MOST_POINTS = 15_000
_MOST_POINTS_ABOVE = 3_000
_MOST_EDGES = 3_000
_MOST_IN_MATRIX = 1_000
_MOST_NAMED = 30
_MOST_LETTERS = 80
_LAYOUT_BY_FORCE = 300

BLUE, GREEN, AMBER, RED, GREY = "#3b7dd8", "#2a9d68", "#d9932b", "#d1495b", "#8a94a3"
_STATE_COLOURS = {"verified": GREEN, "matched": AMBER, "rejected": GREY}
# Weak to strong pairs: colour, width, opacity.
_EDGE_STYLES = ((AMBER, 0.8, 0.55), (BLUE, 0.8, 0.35), (BLUE, 1.2, 0.5), (BLUE, 2.0, 0.7))


def library() -> tuple[Any, str]:
    """plotly's graph objects, and its JavaScript.

    Raises:
        InputError: it is not installed.
    """
    try:
        import plotly.graph_objects
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError("the report's figures need plotly. Install it: pip install 'romacli[report]'.") from error
    return plotly.graph_objects, get_plotlyjs()


def figures(facts: Facts, model: Model | None) -> dict[str, str]:
    """plotly's JSON of every figure there is something to draw in, by name."""
    go, _ = library()
    made = {
        "stages": _stages(go, facts),
        "graph": _graph(go, facts),
    }
    if len(facts.images) <= _MOST_IN_MATRIX:
        made["matrix"] = _matrix(go, facts)
    if facts.tracks is not None:
        made["keypoints"] = _keypoints(go, facts)
        made["tracks"] = _tracks(go, facts)
    if model is not None and model.poses:
        upright = _upright(model)
        made["above"] = _above(go, model, upright)
        made["cloud"] = _cloud(go, model, upright)
    for name, figure in made.items():
        figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="closest")
        if name != "cloud":
            figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})
        figure.layout.template = {}
    return {name: figure.to_json() for name, figure in made.items()}


def _stages(go: Any, facts: Facts) -> Any:
    """Bars of how many images and pairs are left after each stage."""
    figure = go.Figure()
    for row, (kind, counts) in enumerate(facts.stages.items()):
        total = max(counts["planned"], 1)
        names = [f"{kind} {stage}" for stage in counts]
        colours = [GREY if stage in ("planned", "rejected") else (GREEN, BLUE)[row] for stage in counts]
        figure.add_bar(
            y=names[::-1],
            x=[100 * count / total for count in counts.values()][::-1],
            text=[f"{count:,}" for count in counts.values()][::-1],
            marker_color=colours[::-1],
            orientation="h",
            textposition="auto",
            hovertemplate="%{y}: %{text} (%{x:.0f} %)<extra></extra>",
        )
    figure.update_xaxes(range=[0, 103], ticksuffix=" %", title="of those planned", automargin=True)
    figure.update_yaxes(automargin=True)
    return figure.update_layout(showlegend=False, bargap=0.25)


def _matrix(go: Any, facts: Facts) -> Any:
    """The overlap of every pair in percent; unplanned and unfinished pairs are left empty."""
    count = len(facts.images)
    percent = np.full((count, count), -1, np.int8)
    for pair in facts.pairs:
        if pair.overlap is not None:
            percent[pair.one, pair.other] = percent[pair.other, pair.one] = round(100 * min(pair.overlap, 1))
    names = [image.name for image in facts.images]
    empty = 1 / 101
    scale = [(0, "rgba(0,0,0,0)"), (empty, "rgba(0,0,0,0)"), (empty, "#31204f"), (0.3, "#31688e"), (0.6, "#35b779")]
    figure = go.Figure(
        go.Heatmap(
            z=percent,
            x=names,
            y=names,
            zmin=-1,
            zmax=100,
            colorscale=[*scale, (1, "#fde725")],
            colorbar={"title": "overlap", "ticksuffix": " %", "tickvals": [0, 25, 50, 75, 100], "thickness": 12},
            hovertemplate="%{x}<br>%{y}<br>overlap %{z} %<extra></extra>",
        )
    )
    named = count <= _MOST_NAMED
    short = {"tickvals": names, "ticktext": _short_names(names)}
    axis = {"showticklabels": named, **short, "showgrid": False, "type": "category", "automargin": True}
    figure.update_xaxes(**axis, constrain="domain", tickangle=-60)
    return figure.update_yaxes(**axis, autorange="reversed", scaleanchor="x")


def _graph(go: Any, facts: Facts) -> Any:
    """Images as dots and pairs as lines, strong pairs pulling their images together."""
    strengths = [_strength(facts, pair) for pair in facts.pairs]
    drawn = sorted((k for k, strength in enumerate(strengths) if strength > 0), key=strengths.__getitem__)[
        -_MOST_EDGES:
    ]
    ends = np.array([(facts.pairs[k].one, facts.pairs[k].other) for k in drawn], int).reshape(-1, 2)
    weights = np.array([strengths[k] for k in drawn], int)
    xy = _positions(len(facts.images), ends, weights)
    figure = go.Figure()
    for some, (colour, width, opacity) in zip(np.array_split(np.arange(len(drawn)), 4), _EDGE_STYLES, strict=True):
        if not len(some):
            continue
        figure.add_scatter(
            **_segments(xy[ends[some, 0]], xy[ends[some, 1]]),
            mode="lines",
            line={"color": colour, "width": width},
            opacity=opacity,
            hoverinfo="skip",
            name=f"{weights[some[0]]:,} to {weights[some[-1]]:,} {_unit(facts)}",
        )
    text = [f"{i.name}<br>{i.matched} of {i.pairs} pairs matched<br>{i.in_tracks:,} keypoints" for i in facts.images]
    figure.add_scatter(
        x=xy[:, 0],
        y=xy[:, 1],
        mode="markers+text",
        text=_labels([image.name for image in facts.images]),
        textposition="top center",
        textfont_size=10,
        marker={"size": 9, "color": [GREEN if image.matched else RED for image in facts.images]},
        hovertext=text,
        hoverinfo="text",
        showlegend=False,
    )
    hidden = {"visible": False}
    return figure.update_layout(xaxis=hidden, yaxis={**hidden, "scaleanchor": "x"}, legend={"orientation": "h"})


def _strength(facts: Facts, pair: PairRow) -> int:
    """What holds a pair together: inliers where pairs were verified, else matches, else the overlap in percent."""
    if pair.state not in ("matched", "verified"):
        return 0
    if facts.tracks is None:
        return max(1, round(100 * (pair.overlap or 0)))
    return pair.matches if pair.inliers is None else pair.inliers


def _unit(facts: Facts) -> str:
    return "inliers" if facts.verified else "matches" if facts.tracks is not None else "% overlap"


def _positions(count: int, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A place (count, 2) for every image: by a spring model where there are few, else on a circle.

    ends: (n, 2) numbers of the images that are joined, with `weights` (n,).
    """
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_weighted_edges_from(zip(*ends.T.tolist(), np.log1p(weights).tolist(), strict=True) if len(ends) else ())
    if count > _LAYOUT_BY_FORCE or not len(ends):
        circle = networkx.circular_layout(graph)
        return np.array([circle[k] for k in range(count)]).reshape(-1, 2)
    places, left = np.zeros((count, 2)), 0.0
    groups = sorted(networkx.connected_components(graph), key=len, reverse=True)
    joined = [sorted(group) for group in groups if len(group) > 1]
    for group in joined:
        part, radius = graph.subgraph(group), np.sqrt(len(group))
        start = networkx.circular_layout(part)
        sprung = networkx.spring_layout(
            part, pos=start, iterations=100, seed=0, scale=radius, center=(left + radius, 0)
        )
        places[group] = [sprung[k] for k in group]
        left += 2 * radius + 1
    # Images that nothing reaches stand in a row below.
    alone = [k for group in groups if len(group) == 1 for k in group]
    places[alone, 0] = np.linspace(0, left - 1, len(alone))
    places[alone, 1] = -np.sqrt(len(joined[0])) - 1
    return places


def _keypoints(go: Any, facts: Facts) -> Any:
    """A bar for every image: keypoints in tracks, and the others above."""
    names = [image.name for image in facts.images]
    figure = go.Figure()
    shared = [image.in_tracks for image in facts.images]
    figure.add_bar(x=names, y=shared, name="in tracks", marker_color=BLUE)
    figure.add_bar(
        x=names,
        y=[image.keypoints - image.in_tracks for image in facts.images],
        name="unmatched",
        marker_color=GREY,
    )
    if any(image.points3D is not None for image in facts.images):
        figure.add_scatter(
            x=names,
            y=[image.points3D or 0 for image in facts.images],
            name="seen as points of the model",
            mode="markers",
            marker={"color": AMBER, "size": 6},
        )
    short = {"tickvals": names, "ticktext": _short_names(names)}
    figure.update_xaxes(showticklabels=len(names) <= 2 * _MOST_NAMED, **short, type="category", automargin=True)
    figure.update_yaxes(title="keypoints", rangemode="tozero", automargin=True)
    return figure.update_layout(barmode="stack", legend={"orientation": "h", "y": 1.12})


def _tracks(go: Any, facts: Facts) -> Any:
    """How many tracks have 2, 3, ... views, in the hloc files and in the model."""
    assert facts.tracks is not None
    figure = go.Figure()
    figure.add_bar(**_bars(facts.tracks.lengths), name="hloc files", marker_color=BLUE)
    if facts.model is not None:
        figure.add_bar(**_bars(facts.model.lengths), name="model", marker_color=AMBER)
    figure.update_xaxes(title="views in a track", automargin=True)
    figure.update_yaxes(title="tracks", rangemode="tozero", automargin=True)
    return figure.update_layout(barmode="group", showlegend=True, legend={"orientation": "h", "y": 1.12})


def _bars(lengths: Mapping[int, int]) -> dict[str, list[int]]:
    return {"x": list(lengths), "y": list(lengths.values())}


class _Upright:
    """A model turned so that z is up, moved to its middle.

    Up is the mean of the cameras' own up: photographs are seldom taken askew.
    """

    def __init__(self, poses: Mapping[str, Pose], xyz: np.ndarray) -> None:
        centres = np.array([pose.centre for pose in poses.values()])
        up = -np.mean([pose.rotation[1] for pose in poses.values()], axis=0)
        forward = np.mean([pose.rotation[2] for pose in poses.values()], axis=0)
        up = up / max(np.linalg.norm(up), 1e-9)
        across = np.cross(forward, up)
        if np.linalg.norm(across) < 1e-6:
            across = np.cross([1.0, 0.3, 0.2], up)
        across = across / np.linalg.norm(across)
        self._turn = np.stack((across, np.cross(up, across), up))
        self._middle = np.median(xyz, axis=0) if len(xyz) else centres.mean(0)
        self.names = list(poses)
        self.centres = self.points(centres)
        self.directions = np.array([pose.rotation[2] for pose in poses.values()]) @ self._turn.T
        self.axes = np.array([pose.rotation for pose in poses.values()]) @ self._turn.T  # rows: right, down, forward
        spread = np.linalg.norm(self.centres - self.centres.mean(0), axis=1).max() if len(centres) > 1 else 1.0
        self.camera_size = 0.08 * float(spread) or 1.0

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """Points (N, 3) in the upright frame."""
        return np.asarray((xyz - self._middle) @ self._turn.T, np.float32)


def _upright(model: Model) -> _Upright:
    return _Upright(model.poses, model.xyz)


def _chosen(model: Model, upright: _Upright, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and colours (n, 3), at most `count` of those that are not far outliers, longest tracks first."""
    xyz = upright.points(model.xyz)
    low, high = np.percentile(xyz, [2, 98], axis=0) if len(xyz) else (np.zeros(3), np.zeros(3))
    room = 0.6 * (high - low)
    near = np.flatnonzero(((xyz >= low - room) & (xyz <= high + room)).all(axis=1))
    longest = near[np.argsort(-model.track_lengths[near], kind="stable")][:count]
    return xyz[longest], model.colours[longest]


def _above(go: Any, model: Model, upright: _Upright) -> Any:
    """Cameras and points seen from straight above, in the model's unit."""
    points, _ = _chosen(model, upright, MOST_POINTS)
    points = points[np.random.default_rng(0).permutation(len(points))[:_MOST_POINTS_ABOVE]]
    figure = go.Figure()
    figure.add_scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="markers",
        marker={"size": 2.5, "color": GREY, "opacity": 0.5},
        hoverinfo="skip",
        name="points",
    )
    angles = np.degrees(np.arctan2(upright.directions[:, 0], upright.directions[:, 1]))
    figure.add_scatter(
        x=upright.centres[:, 0],
        y=upright.centres[:, 1],
        mode="markers+text",
        marker={"symbol": "arrow", "angle": angles, "size": 13, "color": RED},
        text=_labels(upright.names),
        textposition="bottom center",
        textfont_size=10,
        hovertext=[f"{name}<br>{model.observations[name]:,} points" for name in upright.names],
        hoverinfo="text",
        name="cameras",
    )
    hidden = {"showgrid": False, "zeroline": False, "showticklabels": False}
    return figure.update_layout(xaxis=hidden, yaxis={**hidden, "scaleanchor": "x"}, showlegend=False)


def _cloud(go: Any, model: Model, upright: _Upright) -> Any:
    """The points in their colours and the cameras as small pyramids, to be turned by hand."""
    points, colours = _chosen(model, upright, MOST_POINTS)
    figure = go.Figure()
    figure.add_scatter3d(
        **_xyz(points),
        mode="markers",
        marker={"size": 1.8, "color": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.tolist()]},
        hoverinfo="skip",
        name="points",
    )
    figure.add_scatter3d(
        **_xyz(_pyramids(upright)), mode="lines", line={"color": RED, "width": 2}, hoverinfo="skip", name="views"
    )
    figure.add_scatter3d(
        **_xyz(upright.centres),
        mode="markers",
        marker={"size": 3, "color": RED},
        text=upright.names,
        hoverinfo="text",
        name="cameras",
    )
    everything = np.vstack((points, upright.centres))
    extent = everything.max(0) - everything.min(0)
    largest = max(float(extent.max()), 1e-9)
    middle = (everything.max(0) + everything.min(0)) / 2
    towards = upright.centres.mean(0) - middle
    eye = np.array([*towards[:2], 0.0])
    eye = eye / max(float(np.linalg.norm(eye)), 1e-9) * 1.2 + [0, 0, 0.75]
    hidden = {"visible": False}
    return figure.update_layout(
        showlegend=False,
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", (1.3 * extent / largest).clip(0.05).tolist(), strict=True)),
            "camera": {"eye": dict(zip("xyz", eye.tolist(), strict=True)), "center": {"x": 0, "y": 0, "z": -0.1}},
            "dragmode": "orbit",
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )


def _pyramids(upright: _Upright) -> np.ndarray:
    """Each camera's edges as a line (n, 3), NaN between them."""
    corners = upright.camera_size * np.array([(-0.6, -0.45, 1), (0.6, -0.45, 1), (0.6, 0.45, 1), (-0.6, 0.45, 1)])
    gap = np.full((1, 3), np.nan)
    lines = []
    for centre, axes in zip(upright.centres, upright.axes, strict=True):
        a, b, c, d = corners @ axes + centre
        lines += [np.array([a, b, c, d, a, centre, b]), gap, np.array([c, centre, d]), gap]
    return np.vstack(lines).astype(np.float32)


def _xyz(points: np.ndarray) -> dict[str, np.ndarray]:
    return {axis: np.ascontiguousarray(points[:, k]) for k, axis in enumerate("xyz")}


def _segments(start: np.ndarray, end: np.ndarray) -> dict[str, np.ndarray]:
    """Lines (n, 2) to (n, 2) as one, NaN between them."""
    joined = np.stack((start, end, np.full_like(start, np.nan)), axis=1).reshape(-1, 2).astype(np.float32)
    return {"x": np.ascontiguousarray(joined[:, 0]), "y": np.ascontiguousarray(joined[:, 1])}


def _labels(names: Sequence[str]) -> list[str]:
    """Names to write beside dots; none where they would cover one another."""
    short = _short_names(names)
    fits = len(names) <= _MOST_NAMED and sum(map(len, short)) <= _MOST_LETTERS
    return short if fits else [""] * len(names)


def _short_names(names: Sequence[str]) -> list[str]:
    """Names without the ending and the beginning that all share, as labels."""
    shared = len(os.path.commonprefix(list(names))) if len(names) > 1 else 0
    return [name[shared:].rpartition(".")[0] or name for name in names]
