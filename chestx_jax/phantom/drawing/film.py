"""One film from an anatomy, a pose and findings: densities composed from the lungs outward, then the exposure."""

import numpy as np
from jaxtyping import UInt8

from chestx_jax.phantom.drawing import signs
from chestx_jax.phantom.drawing.anatomy import Anatomy, Lung, Plane, Pose, bump, deform, grid, heart_mask, lung, ramp
from chestx_jax.phantom.finding import Finding

_LUNG_SIGNS = {
    "Lung Opacity": signs.haze,
    "Consolidation": signs.consolidation,
    "Pneumonia": signs.pneumonia,
    "Lung Lesion": signs.lesion,
    "Atelectasis": signs.atelectasis,
    "Edema": signs.edema,
    "Pneumothorax": signs.pneumothorax,
}
_SIDE_OF_SIGN = {-1: "right", 1: "left"}


def draw_film(
    anatomy: Anatomy, pose: Pose, findings: tuple[Finding, ...], rng: np.random.Generator, size: int
) -> UInt8[np.ndarray, "S S"]:
    """The film as 8-bit gray levels, bright where dense. `rng` draws the grain alone."""
    x, y = grid(size, pose)
    anatomy = deform(anatomy, findings)
    heart = heart_mask(anatomy, x, y)
    sides = [lung(anatomy, x, y, heart, sign) for sign in (-1, 1)]
    film = _soft_tissue(anatomy, x, y, heart, sides)
    for side in sides:
        film = film * (1 - side.air) + _lung_density(anatomy, side, y, _of_side(findings, side)) * side.air
    for side in sides:
        for finding in _of_side(findings, side):
            if finding.label == "Pleural Effusion":
                film = signs.effusion(film, side, y, finding, anatomy)
        broken = [finding for finding in _of_side(findings, side) if finding.label == "Fracture"]
        film = film + signs.ribs(anatomy, side, y, broken[0] if broken else None) * (1 - np.float32(0.6) * heart)
    film = _clavicles(film, x, y)
    for finding in findings:
        if finding.label == "Support Devices":
            film = signs.device(film, x, y, finding, anatomy)
    return _expose(film, x, pose, rng)


def _of_side(findings: tuple[Finding, ...], side: Lung) -> list[Finding]:
    return [finding for finding in findings if finding.side in (_SIDE_OF_SIGN[side.sign], "both")]


def _lung_density(anatomy: Anatomy, side: Lung, y: Plane, findings: list[Finding]) -> Plane:
    """Aerated lung with its vessel tree and the signs in it; pneumothorax last, because it removes the markings."""
    trunk_phase, twig_phase = anatomy.vessels[:2] if side.sign < 0 else anatomy.vessels[2:]
    distance, angle = side.hilum_distance, side.hilum_angle
    start = ramp(distance - 0.10, 0.16)
    trunks = np.maximum(np.cos(6 * angle + 4 * distance + np.float32(trunk_phase)), 0) ** 4
    trunks = trunks * np.exp(-((distance * 2.8) ** 2))
    twigs = np.maximum(np.cos(13 * angle - 7 * distance + np.float32(twig_phase)), 0) ** 3
    twigs = twigs * np.exp(-((distance * 1.8) ** 2))
    hilum = np.exp(-((distance * 6) ** 2))
    density = (
        np.float32(0.20) + start * (np.float32(0.20) * trunks + np.float32(0.13) * twigs) + np.float32(0.24) * hilum
    )
    for finding in sorted(findings, key=lambda finding: finding.label == "Pneumothorax"):
        sign = _LUNG_SIGNS.get(finding.label)
        if sign is not None:
            density = sign(density, side, y, finding, anatomy)
    return density


def _soft_tissue(anatomy: Anatomy, x: Plane, y: Plane, heart: Plane, sides: list[Lung]) -> Plane:
    """All but the lungs: chest wall, shoulders, neck with the trachea, mediastinum, heart, abdomen, spine."""
    across = np.abs(x)
    shoulder = np.float32(0.24) + np.float32(0.80) * ramp(y + 0.80, 0.34) - np.float32(0.10) * ramp(y - 0.2, 1.2)
    body = ramp(shoulder - across, 0.05)
    floor = np.where(x < 0, sides[0].floor, sides[1].floor)
    abdomen = ramp(y - floor, 0.03) * ramp(np.float32(anatomy.wall + 0.06) - across, 0.08)
    centre = bump(x, anatomy.mediastinum + anatomy.widening * 0.5 + 0.02, 0.05)
    spine = bump(x, 0.075, 0.03) * (np.float32(0.75) + np.float32(0.25) * np.cos(y * np.float32(2 * np.pi / 0.16)))
    tissue = np.float32(0.56) + np.float32(0.22) * np.maximum(abdomen, centre) + np.float32(0.05) * spine
    tissue = np.maximum(tissue, np.float32(0.76) * heart)
    trachea = bump(x, 0.045, 0.03) * ramp(-0.26 - y, 0.06)
    bubble = ramp(1 - ((x - 0.34) / 0.16) ** 2 - ((y - np.float32(anatomy.dome[1] + 0.16)) / 0.07) ** 2, 0.5)
    return body * (tissue - np.float32(0.16) * trachea - np.float32(0.22) * bubble) + np.float32(0.03)


def _clavicles(film: Plane, x: Plane, y: Plane) -> Plane:
    across = np.abs(x)
    height = np.float32(-0.56) - np.float32(0.26) * (across - 0.10) + np.float32(0.10) * np.sin(across * 6)
    bone = bump(y - height, 0.028, 0.025) * ramp(across - 0.10, 0.03) * ramp(0.78 - across, 0.05)
    return film + np.float32(0.20) * bone * (np.float32(1.1) - film)


def _expose(film: Plane, x: Plane, pose: Pose, rng: np.random.Generator) -> UInt8[np.ndarray, "S S"]:
    """Exposure, grain and quantisation."""
    light = np.clip(film * np.float32(pose.gain) + np.float32(pose.tilt) * x, 0.004, 1) ** np.float32(pose.gamma)
    grain = np.float32(pose.noise) * rng.standard_normal(film.shape, dtype=np.float32)
    return np.clip((light + grain) * 255 + 0.5, 0, 255).astype(np.uint8)
