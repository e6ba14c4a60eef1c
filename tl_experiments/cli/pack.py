"""`tlx pack`: shards for `dataset=webdataset`, of a folder of images or a table of them."""

import argparse

from tl_experiments.cli.parsing import Verbs
from tl_experiments.runtime.signals import terminable


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "pack",
        help="write images into tar shards, for data larger than memory",
        description="Write the images of ROOT, byte for byte, into tar files that WebDataset reads too (KEY.jpg beside "
        "KEY.cls), in random order so that each is a sample of all classes; with an index beside them, for "
        "dataset=webdataset dataset.root=FOLDER. Images that cannot be decoded are named, and then nothing is written.",
    )
    parser.add_argument("root", metavar="ROOT", help="train/CLASS/*.jpg, or CLASS/*.jpg, or a table; as dataset.root")
    parser.add_argument(
        "--shards",
        type=int,
        required=True,
        metavar="N",
        help="of train; other splits get as many as make theirs as large. 100 MB to 1 GB each is usual",
    )
    parser.add_argument("--output", metavar="FOLDER", help="must not be there; default: ROOT_shards")
    parser.add_argument("--skip-bad", action="store_true", help="leave out, and list, what cannot be read or decoded")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order in the shards; default: 0")
    parser.add_argument("--follow-links", action="store_true", help="out of ROOT too; as dataset.follow_links=true")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read; default: one for each core")
    parser.set_defaults(verb=_pack)


def _pack(options: argparse.Namespace) -> None:
    from tl_experiments.data.bad_images import skip_notice
    from tl_experiments.data.packing import Packing, pack
    from tl_experiments.runtime.errors import RunFailed, SettingError
    from tl_experiments.runtime.files import disk_fault
    from tl_experiments.runtime.process import num_cores
    from tl_experiments.runtime.typed_path import typed_path
    from tl_experiments.tracking.console import Console

    if options.workers is not None and options.workers < 0:
        raise SettingError(f"--workers {options.workers}: expected 0 or more")
    root = typed_path(options.root)
    output = typed_path(options.output or root.with_name(f"{root.stem}_shards"))
    packing = Packing(
        num_shards=options.shards,
        seed=options.seed,
        follow_links=options.follow_links,
        skip_bad=options.skip_bad,
        workers=num_cores() if options.workers is None else options.workers,
    )
    with terminable(), Console() as console:
        try:
            packed = pack(options.root, output, packing, watch=console)
        except OSError as error:
            raise RunFailed(f"{output}: cannot be written ({disk_fault(error)}); nothing is left of it") from error
        total = sum(packed.num_images.values())
        if packed.skipped:
            console.notice(skip_notice(packed.skipped, total=total + len(packed.skipped), skipped_by="--skip-bad"))
        told = ", ".join(
            f"{packed.num_images[split]:,} {split} in {count}" for split, count in packed.num_shards.items()
        )
        console.notice(f"{output}: {total:,} images ({told}); dataset=webdataset dataset.root={output}")
