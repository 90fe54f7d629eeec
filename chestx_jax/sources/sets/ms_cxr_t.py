"""MS-CXR-T 1.0.0: how five findings changed between 1,045 pairs of MIMIC-CXR films, by radiologists.

Layout: `MS_CXR_T_temporal_image_classification_v1.0.0.csv`, beside it MIMIC-CXR-JPG and its reports, since the set has
no films of its own (Bannur et al. 2023, https://physionet.org/content/ms-cxr-t/1.0.0/).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from chestx_jax.errors import UserError
from chestx_jax.sources.folders import find, require
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.sets import mimic_cxr
from chestx_jax.sources.study import Change, Study
from chestx_jax.sources.tables import number, read_table

MARKERS = ("MS_CXR_T_temporal_image_classification_v*.csv",)
FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
_Progression = Literal["improving", "stable", "worsening"]


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Both studies of every pair, by patient and time, as MIMIC-CXR has them; the later one with its changes. Use them
    for testing, or keep their patients out of it: the split is MIMIC's, and most are in training."""
    table = require(raw, *MARKERS)
    if find(raw, mimic_cxr.METADATA) is None:
        raise UserError(
            f"{raw} holds no {mimic_cxr.METADATA}[.gz]: MS-CXR-T has no films of its own, so give a folder that holds "
            "both it and MIMIC-CXR-JPG."
        )
    progressions = [f"{finding}_progression" for finding in FINDINGS]
    qualities = [f"{finding}_label_quality" for finding in FINDINGS]
    columns = ("study_id", "dicom_id", "previous_study_id", "previous_dicom_id", *progressions)
    changes: dict[int, list[Change]] = defaultdict(list)
    wanted: set[int] = set()
    for row in read_table(table, columns, problems, qualities):
        study, previous = number(row, "study_id", problems), number(row, "previous_study_id", problems)
        if study is None or previous is None:
            problems.note("no number of a study", row.where, "the pair is left out")
            continue
        wanted.update((int(study), int(previous)))
        films = [row[column].rpartition("/")[2] for column in ("dicom_id", "previous_dicom_id")]
        for finding, progression, quality in zip(FINDINGS, progressions, qualities, strict=True):
            value = row[progression].lower()
            if value in get_args(_Progression):
                name, provenance = finding.replace("_", " "), f"ms_cxr_t {row[quality]}".strip()
                changes[int(study)].append(
                    Change(name, value, films[0], f"s{int(previous)}", films[1], provenance)  # type: ignore[arg-type]
                )
            elif value:
                problems.note(f"an unknown {progression}", f"{row.where} ({value[:20]!r})", "it counts as blank")
    for study_of_pair in mimic_cxr.read(raw, problems, wanted):
        own = tuple(changes.get(int(study_of_pair.id[1:]), ()))
        yield replace(study_of_pair, source="ms_cxr_t", changes=own)
