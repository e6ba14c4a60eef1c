"""The comparison of a sweep as a Markdown table, for people who put it into a README."""

from collections.abc import Iterator

from tl_experiments.sweep.comparison import Comparison
from tl_experiments.sweep.statistics import Spread


def markdown_table(comparison: Comparison) -> str:
    """Return a table of the rows, best first, and a sentence that says how to read it; text ends with a line break."""
    if not comparison.rows:
        return "No run has finished.\n"
    columns = list(_columns(comparison))
    header = [title for title, _ in columns]
    alignment = [":--"] * max(len(comparison.keys), 1)
    alignment += ["--:"] * (len(header) - len(alignment))
    lines = [header, alignment, *zip(*(cells for _, cells in columns), strict=True)]
    table = "\n".join(f"| {' | '.join(map(_escaped, cells))} |" for cells in lines)
    return f"{table}\n\n{_legend(comparison)}\n"


def _columns(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield title and cells of each column: settings, then numbers; counts only where they differ."""
    rows = comparison.rows
    for key in comparison.keys:
        yield key, [row.shown(key) for row in rows]
    if not comparison.keys:
        yield "configuration", [row.label for row in rows]
    if comparison.images_differ:
        yield "training images", [_count(row.num_train_images) for row in rows]
    if len({len(row.outcomes) for row in rows}) > 1:
        yield "seeds", [str(len(row.outcomes)) for row in rows]
    yield "val/acc", [_spread(row.val_acc) for row in rows]
    yield "test/acc", [_spread(row.test_acc) for row in rows]
    yield "trained parameters", [_count(row.num_trained_params) for row in rows]
    yield "seconds", [_spread(row.seconds, ".1f") for row in rows]


def _legend(comparison: Comparison) -> str:
    order = "Best first by val/acc, which also chose the epoch of each run; test/acc had no say."
    counts = {len(row.outcomes) for row in comparison.rows}
    if max(counts) == 1:
        return order
    seeds = f" over {max(counts)} seeds" if len(counts) == 1 else " over seeds"
    return f"{order} Mean ± standard deviation{seeds}."


def _spread(spread: Spread | None, form: str = ".4f") -> str:
    return spread.text(form) if spread else "–"


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,d}"


def _escaped(text: str) -> str:
    """Return text that is one cell, and no markup of another kind."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
