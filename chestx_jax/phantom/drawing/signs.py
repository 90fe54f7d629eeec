"""The look of each finding: one function for each radiological sign.

Lung signs take the density of one lung (float32[S, S], 0 air to 1 metal) and return the changed density; overlay signs
take the whole film. A finding's `amount` in [0, 1] scales the sign, which is well visible even at 0. All details come
from the finding's own seed, so an unchanged finding looks the same on a follow-up film.
"""

from itertools import pairwise

import numpy as np

from chestx_jax.phantom.drawing.anatomy import Anatomy, Lung, Plane, bump, ramp, smooth_noise
from chestx_jax.phantom.finding import Finding

_ZONE_HEIGHT = {"upper": -0.38, "mid": -0.03, "lower": 0.27}


def haze(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Lung opacity: a smooth ground-glass haze through which the vessels remain visible."""
    rho, _ = _patch(lung, y, finding, anatomy, radius=0.30 + 0.06 * finding.amount)
    return density + np.float32(0.24 + 0.10 * finding.amount) * ramp(1 - rho, 0.5)


def consolidation(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Consolidation: a dense, homogeneous patch in which dark air bronchograms branch away from the hilum."""
    rng = np.random.default_rng(finding.shape)
    rho, (out_c, y_c) = _patch(lung, y, finding, anatomy, radius=0.22 + 0.13 * finding.amount)
    patch = ramp(1 - rho + np.float32(0.24) * smooth_noise(rng, len(rho), 9), 0.3)
    direction = np.arctan2(y_c + 0.06, out_c - 0.16)
    cos, sin = np.float32(np.cos(direction)), np.float32(np.sin(direction))
    along = (lung.out - np.float32(out_c)) * cos + (y - np.float32(y_c)) * sin + np.float32(0.08)
    across = (y - np.float32(y_c)) * cos - (lung.out - np.float32(out_c)) * sin
    bend = across - np.float32(rng.uniform(-1.2, 1.2)) * along * along
    fork = np.maximum(along, 0) * np.float32(rng.uniform(0.35, 0.6))
    air = bump(np.abs(bend) - fork, 0.013, 0.022) * ramp(np.float32(0.95) - rho, 0.5)
    dense = np.float32(0.68 + 0.08 * finding.amount) - np.float32(0.30) * air
    return density + patch * np.maximum(dense - density, 0)


def pneumonia(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Pneumonia: patchy, fluffy shadows of medium density with lung between them."""
    rng = np.random.default_rng(finding.shape)
    rho, _ = _patch(lung, y, finding, anatomy, radius=0.27 + 0.13 * finding.amount)
    blotches = ramp(smooth_noise(rng, len(rho), 17) + np.float32(0.12), 1.1)
    return density + np.float32(0.46 + 0.12 * finding.amount) * blotches * ramp(1 - rho, 0.5)


def lesion(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Lung lesion: one round, sharply bounded nodule or mass."""
    rho, _ = _patch(lung, y, finding, anatomy, radius=0.11 + 0.08 * finding.amount, flat=1.0)
    inside = ramp((1 - rho) * np.float32(0.11 + 0.08 * finding.amount), 0.03)
    return density + inside * np.maximum(np.float32(0.76) - density, 0)


def atelectasis(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Atelectasis: plate-like bands above a raised hemidiaphragm (raised by `anatomy.deform`)."""
    rng = np.random.default_rng(finding.shape)
    top = anatomy.dome[0 if lung.sign < 0 else 1]
    left_edge = 0.30 if lung.sign > 0 else 0.20
    span = ramp(lung.out - left_edge, 0.08) * ramp(np.float32(anatomy.wall - 0.06) - lung.out, 0.08)
    slope = np.float32(rng.uniform(-0.22, 0.22))
    level = y - np.float32(top - 0.13) - slope * (lung.out - 0.45)
    level = level + np.float32(rng.uniform(-0.35, 0.35)) * (lung.out - np.float32(0.45)) ** 2
    bands = bump(level, 0.020 + 0.012 * finding.amount, 0.025)
    if finding.amount > 0.3:
        bands = np.maximum(
            bands, bump(level + np.float32(rng.uniform(0.10, 0.14)), 0.014 + 0.012 * finding.amount, 0.025)
        )
    return density + np.float32(0.32) * bands * span


def edema(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Edema: bat-wing perihilar haze, wide upper vessels, short Kerley B lines at the lateral bases."""
    wing = np.exp(-((lung.hilum_distance * np.float32(1 / (0.24 + 0.20 * finding.amount))) ** 2))
    upper = ramp(-y - 0.10, 0.2)
    phase = anatomy.vessels[1 if lung.sign < 0 else 3]
    trunks = np.maximum(np.cos(9 * lung.hilum_angle + np.float32(phase)), 0) ** 2
    cephalisation = np.float32(0.20) * trunks * upper * np.exp(-((lung.hilum_distance * 2.0) ** 2))
    cephalisation = cephalisation * ramp(lung.hilum_distance - 0.14, 0.16)
    edge = ramp(lung.radius - 0.80, 0.03) * ramp(y - 0.12, 0.05) * ramp(np.float32(lung.base - 0.10) - y, 0.05)
    kerley = np.maximum(np.cos(y * np.float32(2 * np.pi / 0.085)), 0) ** 3 * edge
    return density + np.float32(0.20 + 0.26 * finding.amount) * wing + cephalisation + np.float32(0.24) * kerley


def pneumothorax(density: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Pneumothorax: a thin bright pleural line, dark beyond it and without markings."""
    shrink = 0.80 - 0.20 * finding.amount
    height = 0.25 - anatomy.apex
    above = np.maximum((np.float32(0.25) - y) * np.float32(1 / (height * (0.86 - 0.30 * finding.amount))), 0)
    radius = np.sqrt((lung.out * np.float32(1 / (anatomy.wall * shrink))) ** 2 + above * above)
    distance = (radius - 1) * np.float32(anatomy.wall * shrink)
    beyond = ramp(distance, 0.02)
    collapsed = density + np.float32(0.05 + 0.16 * finding.amount)
    line = bump(distance, 0.012, 0.018)
    return collapsed * (1 - beyond) + np.float32(0.06) * beyond + np.float32(0.34) * line


def effusion(film: Plane, lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Pleural effusion: fluid at the base that blunts the costophrenic angle and climbs the wall as a meniscus."""
    height = 0.34 + 0.50 * finding.amount
    climb = np.clip(lung.out * np.float32(1 / anatomy.wall), 0, 1) ** 3
    surface = np.float32(lung.base) - np.float32(height) * (np.float32(0.50) + np.float32(0.50) * climb)
    fluid = ramp(y - surface, 0.035) * lung.inside * ramp(np.float32(0.80) - y, 0.1)
    return film + fluid * np.maximum(np.float32(0.76) - film, 0)


def ribs(anatomy: Anatomy, lung: Lung, y: Plane, fracture: Finding | None) -> Plane:
    """Added density of one side's ribs; a fractured one has a gap, a step-off and bright broken ends."""
    out = lung.out
    curve = np.float32(anatomy.rib_slope) * out + np.float32(0.42) * (out - 0.25) ** 2
    phase = (y - curve) * np.float32(1 / anatomy.rib_spacing) + np.float32(anatomy.rib_phase)
    cage = ramp((np.float32(1.06) - lung.radius) * np.float32(anatomy.wall), 0.04) * (out > 0.07) * ramp(0.62 - y, 0.2)
    strength = np.float32(anatomy.bone) * (np.float32(0.75) + np.float32(0.5) * out)
    fragments = np.zeros_like(out)
    if fracture is not None:
        phase, fragments = _break(anatomy, phase, out, y, fracture)
    from_centre = np.abs(phase - np.round(phase))
    posterior = ramp(np.float32(0.25) - from_centre, 0.14) * (
        np.float32(0.7) + np.float32(0.3) * ramp(from_centre - 0.12, 0.1)
    )
    crossing = (y + np.float32(0.55) * out) * np.float32(1 / (anatomy.rib_spacing * 1.1))
    anterior = (
        ramp(np.float32(0.22) - np.abs(crossing - np.round(crossing)), 0.14) * ramp(out - 0.32, 0.2) * np.float32(0.45)
    )
    return cage * (strength * np.maximum(posterior, anterior) + fragments)


def _break(anatomy: Anatomy, phase: Plane, out: Plane, y: Plane, finding: Finding) -> tuple[Plane, Plane]:
    """The rib phase without the broken part of two ribs (three in a severe fracture), and that part displaced."""
    rng = np.random.default_rng(finding.shape)
    break_out, height = rng.uniform(0.48, 0.56), rng.uniform(-0.34, 0.0)
    straightened = height - anatomy.rib_slope * break_out - 0.42 * (break_out - 0.25) ** 2
    number = np.round(straightened / anatomy.rib_spacing + anatomy.rib_phase)
    step = np.float32(0.42 + 0.20 * finding.amount)
    original, displaced = phase, np.zeros_like(out)
    for rib in range(3 if finding.severity == "severe" else 2):
        along = out - np.float32(break_out + 0.035 * rib)
        across = original - np.float32(number + rib)
        fragment = ramp(np.float32(0.19) - np.abs(across - step * ramp(along, 0.012)), 0.12) * bump(along, 0.26, 0.08)
        gap, ends = bump(along, 0.018, 0.02), bump(along, 0.07, 0.06)
        around = ramp(np.float32(0.42) - np.abs(across - step / 2), 0.2)
        displaced = displaced + fragment * (np.float32(0.24) + np.float32(0.26) * ends) * (1 - gap)
        displaced = displaced - np.float32(0.12) * gap * around
        # Beyond the break the rib is gone from its old place: the phase is moved out of the rib's band.
        phase = np.where((along > 0) & (along < 0.26) & (np.abs(across) < 0.5), np.float32(0.5), phase)
    return phase, displaced


def device(film: Plane, x: Plane, y: Plane, finding: Finding, anatomy: Anatomy) -> Plane:
    """Support devices: metal and plastic, brighter than bone."""
    rng = np.random.default_rng(finding.shape)
    sign = -1.0 if finding.side == "right" else 1.0
    if finding.kind == "pacemaker":
        box_x, box_y = sign * rng.uniform(0.46, 0.54), rng.uniform(-0.44, -0.36)
        lead = [(box_x - sign * 0.10, box_y), (sign * 0.14, -0.52), (-0.08, -0.25), (-0.06, 0.10), (0.16, 0.28)]
        width, height = 0.13 + 0.02 * finding.amount, 0.10 + 0.02 * finding.amount
        box = ramp(width - np.abs(x - np.float32(box_x)), 0.03) * ramp(height - np.abs(y - np.float32(box_y)), 0.03)
        mask = np.maximum(box, _wire(x, y, lead, 0.016))
    elif finding.kind == "central line":
        start = rng.uniform(-0.66, -0.56)
        path = [(sign * 0.86, start + 0.16), (sign * 0.45, start), (-0.09, -0.46), (-0.10, rng.uniform(-0.06, 0.06))]
        mask = _wire(x, y, path, 0.020)
    elif finding.kind == "endotracheal tube":
        end = rng.uniform(-0.42, -0.34)
        lean = rng.uniform(-0.02, 0.02)
        mask = np.maximum(*(_wire(x, y, [(lean + e, -1.0), (e, end)], 0.016) for e in (-0.045, 0.045)))
    else:
        mask = _wire(x, y, [(0.0, -1.0), (0.03, -0.2), (0.02, 0.35), (0.20, 0.62), (0.36, 0.66)], 0.022)
    return film + mask * (np.float32(0.97) - film)


def _wire(x: Plane, y: Plane, points: list[tuple[float, float]], half_width: float) -> Plane:
    """An anti-aliased polyline, 1 on it."""
    nearest = np.full_like(x, 9.0)  # squared distance
    for (x0, y0), (x1, y1) in pairwise(points):
        length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = (x - np.float32(x0)) * np.float32(x1 - x0) + (y - np.float32(y0)) * np.float32(y1 - y0)
        t = np.clip(along / np.float32(length2), 0, 1)
        dx, dy = x - np.float32(x0) - t * np.float32(x1 - x0), y - np.float32(y0) - t * np.float32(y1 - y0)
        nearest = np.minimum(nearest, dx * dx + dy * dy)
    return ramp(np.float32(half_width) - np.sqrt(nearest), 0.018)


def _patch(lung: Lung, y: Plane, finding: Finding, anatomy: Anatomy, radius: float, flat: float = 1.15):
    """Distance field of a patch in the finding's zone (0 in the centre, 1 on the rim), and its centre (out, y)."""
    rng = np.random.default_rng(finding.shape)
    y_c = _ZONE_HEIGHT[finding.zone] + rng.uniform(-0.05, 0.05)
    above = max((0.25 - y_c) / (0.25 - anatomy.apex), 0.0)
    wall = anatomy.wall * np.sqrt(max(1 - above * above, 0.1))
    right, left, waist, apex = anatomy.heart
    beside = (right if lung.sign < 0 else left) * np.clip((y_c - waist) / (apex - waist), 0, 1)
    inner = max(anatomy.mediastinum + anatomy.widening, beside)
    out_c = inner + (wall - inner) * rng.uniform(0.48, 0.62)
    dx, dy = lung.out - np.float32(out_c), y - np.float32(y_c)
    return np.sqrt(dx * dx + (dy * np.float32(flat)) ** 2) * np.float32(1 / radius), (out_c, y_c)
