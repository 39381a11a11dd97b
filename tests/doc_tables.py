"""Tables in the documentation that follow from rows in the code.

After changing such a row, rewrite them:

    make tables
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.house import ROOT


def metrics_table() -> str:
    """Return the metrics of ``report.json``."""
    from distill.evaluate.metrics import METRICS

    rows = [
        (
            f"`{metric.name}`",
            ", ".join(f"`{task}`" for task in metric.tasks),
            metric.title,
            metric.meaning,
            "more" if metric.more_is_better else "less",
        )
        for metric in METRICS
    ]
    return _table(("metric", "task", "heading", "meaning", "better"), rows)


def terms_table() -> str:
    """Return the loss terms and what each of them needs."""
    from distill.losses.catalogue import TERMS

    towers = {
        "both": "both towers",
        "common": "the towers in common",
        "own": "the student's towers",
        "image": "an image tower",
    }
    rows = []
    for row in TERMS.values():
        bank = ", a bank of texts" if row.needs_prompts else ", the cache"
        needs = towers[row.towers] + (bank if row.needs_prompts or row.needs_corpus else "")
        rows.append(
            (
                f"`{row.name}`",
                row.title.rstrip("."),
                _yes(row.needs_teacher),
                needs,
                _yes(row.needs_pairs or row.needs_partners),
                _yes(row.equal_width) if row.needs_teacher else "–",
            )
        )
    heading = ("term", "what it does", "teacher", "needs", "true pairs", "equal widths")
    return _table(heading, rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def digests_table() -> str:
    """Return the fields of a recipe by the first stage whose result they change."""
    from distill.recipe.stages import STAGES

    fields: dict[str | None, list[str]] = {stage: [] for stage in (*STAGES, None)}
    for name, stage in _marked_fields():
        fields[stage].append(f"`{name}`")
    rows = [(f"`{stage}`" if stage else "none", ", ".join(fields[stage])) for stage in fields]
    return _table(("stage", "fields"), rows)


def _marked_fields() -> Iterator[tuple[str, str | None]]:
    """Yield the fields of a recipe that are marked with a stage, section by section."""
    from distill.recipe.base import Section
    from distill.recipe.config import RunConfig
    from distill.recipe.stages import Changes

    def visit(section: type[Section], prefix: str) -> Iterator[tuple[str, str | None]]:
        for name, field in section.model_fields.items():
            marks = [mark.stage for mark in field.metadata if isinstance(mark, Changes)]
            if marks:
                yield f"{prefix}{name}", marks[0]
            elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                yield from visit(field.annotation, f"{prefix}{name}.")

    return visit(RunConfig, "")


# The page and the name of the markers, <!-- NAME --> and <!-- /NAME -->, that a table is between.
TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/file-formats.md", "metrics"): metrics_table,
    ("docs/file-formats.md", "digests"): digests_table,
    ("docs/losses.md", "terms"): terms_table,
}


def split(page: Path, name: str) -> tuple[str, str, str]:
    """Return what is before the table, the table and what is after it, markers left outside."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = page.read_text(encoding="utf-8")
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{page}: needs the lines {start.strip()} and {end} once each")
    before, rest = text.split(start)
    table, after = rest.split(end)
    return before + start, table, end + after


def write() -> None:
    """Write every table between its markers."""
    for (path, name), table in TABLES.items():
        page = ROOT / path
        before, _, after = split(page, name)
        page.write_text(f"{before}{table()}{after}", encoding="utf-8")


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write()
