"""A frontal chest in parameters, and the arrays shared by all drawing steps of one film.

Coordinates: x from -1 (image left, the patient's right) to 1, y from -1 (top) to 1; one unit is half the film's side.
Densities run from 0 (air, black) to 1 (metal, white). The patient's right is on the image's left, as films are read.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from chestx_jax.phantom.finding import Finding

Plane = Float[np.ndarray, "S S"]


@dataclass(frozen=True)
class Anatomy:
    """One patient's build, before any finding."""

    wall: float  # half-width of the thorax inside the ribs
    apex: float  # y of the lung apices
    dome: tuple[float, float]  # y of the right and left diaphragm domes
    heart: tuple[float, float, float, float]  # extent to the right and left, y of the waist and of the widest level
    mediastinum: float  # half-width above the heart
    widening: float  # extra half-width of the upper mediastinum
    rib_spacing: float
    rib_slope: float
    rib_phase: float
    vessels: tuple[float, float, float, float]  # angular phases of the vessel tree, two per side
    bone: float  # density that ribs add


@dataclass(frozen=True)
class Pose:
    """What differs between films of one patient: position, exposure, noise."""

    angle: float
    shift: tuple[float, float]
    scale: float
    gain: float
    gamma: float
    noise: float
    tilt: float  # exposure gradient from right to left


@dataclass(frozen=True)
class Lung:
    """Arrays of one side."""

    out: Plane  # distance from the midline, positive on this side
    radius: Plane  # 1 on the thoracic wall and apex, smaller inside
    air: Plane  # 1 where aerated lung is, soft edges
    inside: Plane  # 1 inside the thorax of this side, diaphragm and fluid included
    hilum_distance: Plane
    hilum_angle: Plane
    base: float  # y of the costophrenic angle
    floor: Plane  # y of the diaphragm at each pixel's column
    sign: int  # -1 for the patient's right (image left), 1 for the left


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A normal build: cardiothoracic ratio 0.41–0.48, right diaphragm a little higher than the left."""
    u = rng.uniform
    wall = u(0.74, 0.82)
    dome = u(0.40, 0.48)
    width = 2 * wall * u(0.41, 0.48)
    to_the_left = u(0.66, 0.72)
    phases = rng.uniform(0, 2 * np.pi, 4)
    return Anatomy(
        wall=wall,
        apex=u(-0.80, -0.74),
        dome=(dome, dome + u(0.03, 0.07)),
        heart=(width * (1 - to_the_left), width * to_the_left, u(-0.34, -0.28), dome - u(0.16, 0.20)),
        mediastinum=u(0.10, 0.125),
        widening=0.0,
        rib_spacing=u(0.165, 0.185),
        rib_slope=u(0.10, 0.25),
        rib_phase=u(0, 1),
        vessels=(phases[0], phases[1], phases[2], phases[3]),
        bone=u(0.07, 0.11),
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """A position and exposure within ordinary limits."""
    u = rng.uniform
    return Pose(
        angle=u(-0.06, 0.06),
        shift=(u(-0.04, 0.04), u(-0.03, 0.03)),
        scale=u(0.96, 1.04),
        gain=u(0.90, 1.10),
        gamma=u(0.88, 1.14),
        noise=u(0.010, 0.022),
        tilt=u(-0.03, 0.03),
    )


def deform(anatomy: Anatomy, findings: tuple[Finding, ...]) -> Anatomy:
    """The build changed by findings: a wide heart, a wide mediastinum, a diaphragm raised by volume loss."""
    for finding in findings:
        if finding.label == "Cardiomegaly":
            right, left, waist, apex = anatomy.heart
            scale = 2 * anatomy.wall * (0.61 + 0.15 * finding.amount) / (right + left)
            anatomy = replace(anatomy, heart=(right * scale, left * scale, waist - 0.04, apex - 0.06))
        elif finding.label == "Enlarged Cardiomediastinum":
            anatomy = replace(anatomy, widening=0.12 + 0.12 * finding.amount)
        elif finding.label == "Atelectasis":
            lift = 0.13 + 0.10 * finding.amount
            right, left = anatomy.dome
            raised = (right - lift * (finding.side != "left"), left - lift * (finding.side != "right"))
            anatomy = replace(anatomy, dome=raised)
    return anatomy


def grid(size: int, pose: Pose) -> tuple[Plane, Plane]:
    """x and y of every pixel centre in the patient's frame, float32[size, size] each."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x, y = line[None, :] - np.float32(pose.shift[0]), line[:, None] - np.float32(pose.shift[1])
    cos, sin = np.float32(np.cos(pose.angle) / pose.scale), np.float32(np.sin(pose.angle) / pose.scale)
    return cos * x + sin * y, cos * y - sin * x


def ramp(distance: Plane, width: float) -> Plane:
    """An anti-aliased edge: rises from 0 to 1 over `width` where `distance` crosses zero."""
    return np.clip(distance * np.float32(1.0 / width) + np.float32(0.5), 0, 1)


def bump(distance: Plane, half_width: float, edge: float = 0.02) -> Plane:
    """An anti-aliased line: 1 where |distance| is below `half_width`, soft over `edge`."""
    return ramp(half_width - np.abs(distance), edge)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Plane:
    """Zero-mean random field with `cells` features across, float32[size, size], standard deviation near 0.7."""
    knots = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    position = (np.arange(size, dtype=np.float32) + 0.5) * (cells / size)
    low = position.astype(np.int32)
    part = position - low
    weights = np.zeros((size, cells + 1), np.float32)
    rows = np.arange(size)
    part = part * part * (3 - 2 * part)
    weights[rows, low], weights[rows, low + 1] = 1 - part, part
    return weights @ knots @ weights.T


def lung(anatomy: Anatomy, x: Plane, y: Plane, heart: Plane, sign: int) -> Lung:
    """The arrays of one side: an ellipse above the widest level, straight walls below it, less diaphragm, mediastinum
    and heart. `sign`: -1 for the patient's right, 1 for the left."""
    out = x * np.float32(sign)
    dome = anatomy.dome[0 if sign < 0 else 1]
    above = np.maximum((np.float32(0.25) - y) * np.float32(1 / (0.25 - anatomy.apex)), 0)
    radius = np.sqrt((out * np.float32(1 / anatomy.wall)) ** 2 + above * above)
    inside = ramp((1 - radius) * np.float32(anatomy.wall), 0.035) * (out > 0)
    floor = np.float32(dome) + np.float32(0.36) * np.maximum(out * np.float32(1 / anatomy.wall) - 0.35, 0) ** 2 * 1.6
    centre = mediastinal_width(anatomy, y, sign)
    air = inside * ramp(floor - y, 0.03) * ramp(out - centre, 0.03) * (1 - heart)
    away_x, away_y = out - np.float32(0.16), y - np.float32(-0.06)
    return Lung(
        out=out,
        radius=radius,
        air=air,
        inside=inside * ramp(out - centre, 0.03),
        hilum_distance=np.sqrt(away_x**2 + away_y**2),
        hilum_angle=np.arctan2(away_y, away_x),
        base=dome + 0.36 * 1.6 * 0.65**2,
        floor=floor,
        sign=sign,
    )


def mediastinal_width(anatomy: Anatomy, y: Plane, sign: int) -> Plane:
    """Half-width of the mediastinum at each height: the aortic knob on the left, the widening on both sides."""
    knob = np.float32(0.055 if sign > 0 else 0.01) * np.exp(-(((y + 0.36) * 7) ** 2))
    wide = np.float32(anatomy.widening) * ramp(y + 0.72, 0.2) * ramp(0.15 - y, 0.4)
    return np.float32(anatomy.mediastinum) + knob + wide


def heart_mask(anatomy: Anatomy, x: Plane, y: Plane) -> Plane:
    """The cardiac silhouette, 1 inside: wider than the mediastinum, more so to the left, down to the diaphragm."""
    right, left, waist, apex = (np.float32(value) for value in anatomy.heart)
    rise = np.clip((y - waist) * np.float32(1 / (apex - waist)), 0, 1)
    fall = np.clip((y - apex) * np.float32(1 / 0.60), 0, 1)
    profile = rise * rise * (3 - 2 * rise) * np.sqrt(1 - fall * fall)
    half_width = np.where(x > 0, left, right) * profile
    return ramp(half_width - np.abs(x), 0.035)
