"""Open-i, the Indiana University collection: 3,955 reports as XML, 7,470 films, one patient a report.

Layout: `ecgen-radiology/<n>.xml` or `NLMCXR_reports.tgz`, and films as PNG or DICOM anywhere below the folder
(Demner-Fushman et al. 2016, https://openi.nlm.nih.gov/faq). The form of Kaggle, `indiana_reports.csv` with
`indiana_projections.csv` and `images_normalized/`, is read where there is no XML.
"""

import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from chestx_jax.errors import UserError, one_line
from chestx_jax.sources.folders import files_below, find, require
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.reports import clean, joined_report
from chestx_jax.sources.study import Film, Labels, Study
from chestx_jax.sources.tables import read_table
from chestx_jax.sources.views import view_of

MARKERS = ("ecgen-radiology", "NLMCXR_reports.tgz", "indiana_reports.csv")
SECTIONS = ("comparison", "indication", "findings", "impression")
_LOST = "#NAME?"  # a spreadsheet's word for a text that began with a sign, in Kaggle's table
_SUFFIXES = (".png", ".dcm", ".jpg", ".jpeg")


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Studies by number. Views are those of the table of projections, where there is one, else unknown."""
    films = {_film_name(stem): path for stem, path in files_below(raw, raw, _SUFFIXES)}
    views = _projections(raw, problems)
    source = require(raw, *MARKERS)
    if source.suffix == ".csv":
        yield from _read_csv(source, films, views, problems)
        return
    documents = _archived(source) if source.suffix == ".tgz" else _extracted(source)
    numbered = sorted((int(name), content) for name, content in documents if name.isdigit())
    for number, content in numbered:
        where = f"{source.name}/{number}.xml"
        try:
            root = ElementTree.fromstring(content)
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            problems.skip("the file is no whole XML", f"{where} ({one_line(error)})")
            continue
        texts = {(part.get("Label") or "").lower(): clean(part.text or "") for part in root.iter("AbstractText")}
        headings = [clean(heading.text or "") for heading in root.iterfind("MeSH/major")]
        names = [_film_name(image.get("id", "")) for image in root.iter("parentImage")]
        yield from _study(number, texts, headings, names, films, views, problems, where)


def _study(
    number: int,
    texts: dict[str, str],
    headings: list[str],
    names: list[str],
    films: dict[str, str],
    views: dict[str, str],
    problems: Problems,
    where: str,
) -> Iterator[Study]:
    sections = {name: texts[name] for name in SECTIONS if texts.get(name)}
    shown = []
    for name in names:
        if name in films:
            shown.append(Film(name, films[name], view_of(views.get(name, ""))))
        else:
            problems.note("a film is missing", f"{where} ({name})", "the study goes without it")
    if not shown and not {"findings", "impression"} & sections.keys():
        problems.skip("neither film nor findings nor impression", where)
        return
    labels = [heading.partition("/")[0].strip().lower() for heading in headings]
    values: dict[str, int | None] = {label: 1 for label in labels if label not in ("", "no indexing")}
    yield Study(
        source="openi",
        patient=f"openi:{number}",
        id=f"CXR{number}",
        films=tuple(shown),
        report=joined_report(sections),
        sections=sections,
        labels=(Labels("mesh", values),) if values else (),
    )


def _extracted(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.glob("*.xml"):
        if path.is_file():
            yield path.stem, path.read_bytes()


def _archived(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".xml") else None
                if file:
                    yield Path(member.name).stem, file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{path} is cut short or damaged ({one_line(error)}): download it again.") from error


def _projections(raw: Path, problems: Problems) -> dict[str, str]:
    """The view of each film by its name."""
    path = find(raw, "indiana_projections.csv")
    rows = read_table(path, ("filename", "projection"), problems) if path else ()
    return {_film_name(row["filename"]): row["projection"] for row in rows}


def _film_name(name: str) -> str:
    """`1_IM-0001-3001` of `CXR1_1_IM-0001-3001.png`, `1_IM-0001-3001.dcm` and `1_IM-0001-3001.dcm.png`."""
    return re.sub(r"^CXR\d+_(?=\d)|(\.dcm)?(\.png|\.jpe?g)?$", "", name)


def _read_csv(table: Path, films: dict[str, str], views: dict[str, str], problems: Problems) -> Iterator[Study]:
    names = defaultdict(list)
    path = find(table.parent, "indiana_projections.csv")
    for row in read_table(path, ("uid", "filename"), problems) if path else ():
        names[row["uid"]].append(_film_name(row["filename"]))
    studies = []
    for row in read_table(table, ("uid", "MeSH", *SECTIONS), problems):
        if not row["uid"].isdigit():
            problems.skip("no number of the report", f"{row.where} ({row['uid'][:20]!r})")
            continue
        texts = {name: clean(row[name]) for name in SECTIONS if row[name] != _LOST}
        headings = row["MeSH"].split(";")
        studies.append((int(row["uid"]), texts, headings, names[row["uid"]], row.where))
    for number, texts, headings, films_named, where in sorted(studies, key=lambda item: item[0]):
        yield from _study(number, texts, headings, films_named, films, views, problems, where)
