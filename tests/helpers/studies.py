"""Studies written down by hand."""

from chestx_jax.sources.catalog import read_studies
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Labels


def read_all(name, raw):
    """The studies of a folder and the problems met."""
    problems = Problems()
    return list(read_studies(name, raw, problems)), problems


def labels(provenance, names, otherwise=None, /, **values):
    """Values of `names`, `otherwise` where they are not given; underscores stand for blanks."""
    given = {name.replace("_", " "): value for name, value in values.items()}
    result = {name: given.pop(name.replace("_", " "), otherwise) for name in names}
    assert not given
    return Labels(provenance, result)


def brief(study):
    """A study without what is empty: labels by provenance that are not None, films as path and view."""
    known = {one.provenance: {k: v for k, v in one.values.items() if v is not None} for one in study.labels}
    films = [(film.path, film.view) for film in study.films]
    return (study.patient, study.id, study.order, study.split, films, dict(study.sections), known)
