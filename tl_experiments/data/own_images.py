"""Images of one's own wherever they are: in a folder, or listed or held by a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_experiments.data.folder import found_split
from tl_experiments.data.folder_scan import Problem, resolved_root, scan_folder
from tl_experiments.data.source import Split
from tl_experiments.data.table_rows import is_table
from tl_experiments.data.tables import table_splits


@dataclass(frozen=True)
class OwnImages:
    """What is there, unread.

    Attributes:
        class_names: in label order.
        splits: by name, those that are there.
        problems: for each of which a folder cannot be learnt from.
    """

    class_names: tuple[str, ...]
    splits: dict[str, Split]
    problems: Sequence[Problem]


def resolved_place(root: str) -> Path:
    """Return where a folder or a table that was typed really is.

    Raises:
        DataError: there is no such folder.
        SettingError: there can be none.
    """
    place = Path(root).expanduser()
    return place.absolute() if is_table(place) else resolved_root(root, named=root)


def list_images(place: Path, *, follow_links: bool) -> OwnImages:
    """List the images of a folder or a table.

    Args:
        place: resolved, if it is a folder.
        follow_links: out of it too.

    Raises:
        DataError: there is no image in it, or the table itself is malformed.
    """
    if is_table(place):
        class_names, splits = table_splits(place, follow_links=follow_links)
        return OwnImages(class_names, splits, ())
    found = scan_folder(place, follow_links=follow_links)
    splits = {name: found_split(found, name, follow_links=follow_links) for name in found.splits}
    return OwnImages(found.class_names, splits, found.problems)
