"""The tasks and the label set of CheXpert-style answers, and how an answer lists labels."""

import re

TASKS = ("binary", "single", "multiple", "anomaly", "temporal")
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
    "No Finding",
)


def label_names(text: str, marks: str = " .*-") -> list[str]:
    """The names of a comma-, semicolon- or line-separated list of labels, in lower case and in order, without `marks`
    at their ends."""
    parts = re.split(r"[,;\n]", text)
    return [name for part in parts if (name := " ".join(part.split()).strip(marks).lower())]
