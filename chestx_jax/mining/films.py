"""Which films of a study are shown with a question."""

from chestx_jax.sources.study import FRONTAL, Film, Study


def shown_films(study: Study, most: int = 2) -> list[Film]:
    """The best frontal film (PA before AP) and, where there is room, of a lateral one. None without a frontal
    film. Where a change was read on one film, that film is the frontal one."""
    read = {change.film for change in study.changes}
    frontal = sorted(
        (film for film in study.films if film.view in FRONTAL),
        key=lambda film: (film.id not in read, FRONTAL.index(film.view), film.id),
    )
    lateral = sorted((film for film in study.films if film.view == "lateral"), key=lambda film: film.id)
    return [*frontal[:1], *lateral[:1]][:most] if frontal else []
