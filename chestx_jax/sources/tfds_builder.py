"""Each set as a tensorflow-datasets builder, which needs no tensorflow: studies with their films as array_record files.

    dataset = tfds_builder.builder("nih", data_dir="data")
    dataset.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir="DOWNLOADS/nih"))
    studies = dataset.as_data_source(split="train")  # random access, for Grain

A film is the bytes of its file, whatever its form, to be decoded where it is used (in a Grain worker, say).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import tensorflow_datasets as tfds

from chestx_jax.errors import choose
from chestx_jax.sources.catalog import SOURCES, read_studies
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.splits import with_splits
from chestx_jax.sources.study import Split, Study, View

_BOX = ("film", "label", "provenance", "left", "top", "width", "height")
_UNKNOWN = -2  # a label's value that is not given, an order that is not known


def builder(name: str, data_dir: str | Path, **settings: Any) -> tfds.core.DatasetBuilder:
    """The builder of a set; what it makes lies in DATA_DIR/chestx_NAME. Raises UserError for an unknown set."""
    choose(SOURCES, name, "set of films")
    return _BUILDERS[name](data_dir=str(data_dir), file_format="array_record", **settings)


class _Studies(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the builders of all sets share; `source` is the set's name in the catalog."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    source = ""

    def _info(self) -> tfds.core.DatasetInfo:
        text, number = tfds.features.Text(), tfds.features.Scalar(dtype=np.float32)
        integer = tfds.features.Scalar(dtype=np.int64)
        features = {
            "patient": text,
            "study": text,
            "order": integer,
            "report": text,
            "sections": tfds.features.Sequence({"name": text, "text": text}),
            "films": tfds.features.Sequence(
                {
                    "id": text,
                    "view": tfds.features.ClassLabel(names=get_args(View)),
                    "image": text,  # bytes, which come back as they are; an image feature would decode them
                }
            ),
            "labels": tfds.features.Sequence({"provenance": text, "label": text, "value": integer}),
            "boxes": tfds.features.Sequence(
                {"film": text, "label": text, "provenance": text, "left": number, "top": number, "width": number,
                 "height": number, "frame_width": integer, "frame_height": integer}
            ),
            "changes": tfds.features.Sequence(
                {"finding": text, "value": text, "film": text, "previous_study": text, "previous_film": text,
                 "provenance": text}
            ),
        }  # fmt: skip
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Studies of the set {self.source}: films, report sections, labels with their provenance.",
            features=tfds.features.FeaturesDict(features),
            citation="",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        raw = Path(dl_manager.manual_dir)
        studies = with_splits(list(read_studies(self.source, raw, Problems())))
        splits = [split for split in get_args(Split) if any(study.split == split for study in studies)]
        return {split: self._generate_examples(raw, studies, split) for split in splits}

    def _generate_examples(self, raw: Path, studies: list[Study], split: Split) -> Iterator[tuple[str, dict[str, Any]]]:
        for study in studies:
            if study.split == split:
                yield f"{study.patient}/{study.id}", _example(raw, study)


def _example(raw: Path, study: Study) -> dict[str, Any]:
    return {
        "patient": study.patient,
        "study": study.id,
        "order": _UNKNOWN if study.order is None else study.order,
        "report": study.report,
        "sections": [{"name": name, "text": text} for name, text in study.sections.items()],
        "films": [{"id": film.id, "view": film.view, "image": (raw / film.path).read_bytes()} for film in study.films],
        "labels": [
            {"provenance": labels.provenance, "label": label, "value": _UNKNOWN if value is None else value}
            for labels in study.labels
            for label, value in labels.values.items()
        ],
        "boxes": [
            {
                **{name: getattr(box, name) for name in _BOX},
                "frame_width": box.frame[0] if box.frame else _UNKNOWN,
                "frame_height": box.frame[1] if box.frame else _UNKNOWN,
            }
            for box in study.boxes
        ],
        "changes": [change._asdict() for change in study.changes],
    }


def _builder_class(name: str) -> type[_Studies]:
    instructions = f"Give the folder of the set as it was downloaded, with {' or '.join(SOURCES[name].markers)}."
    members = {"source": name, "name": f"chestx_{name}", "MANUAL_DOWNLOAD_INSTRUCTIONS": instructions}
    return type(f"Chestx{name.title().replace('_', '')}", (_Studies,), {"__module__": __name__, **members})


_BUILDERS = {name: _builder_class(name) for name in SOURCES}
