"""Features that a run is going to need, extracted before it, by one process or by many that share the images.

A worker reads, checks and decodes the images of its share alone. What it has extracted is in the cache shard by shard;
one that is killed loses the shard that it was at.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tl_experiments import build
from tl_experiments.config.member import Member
from tl_experiments.features.extract import View
from tl_experiments.runtime.cache_folder import GB, LIMIT, cache_limit
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.share import Share
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.on_features import keep_features, seen
from tl_experiments.tracking.console import Console


@dataclass(frozen=True)
class Extracted:
    """What one worker did.

    Attributes:
        share: of the images, that it was to see.
        wanted: features of these, each view of an image counted.
        computed: how many of them it extracted; the others were known.
        seconds: for that, without reading and checking.
    """

    share: Share
    wanted: int
    computed: int
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.computed / self.seconds:,.0f} a second" if self.computed else ""
        return (
            f"{self.share}: {self.computed:,} features computed in {self.seconds:.1f} s{rate}; "
            f"{self.wanted - self.computed:,} were known"
        )


def extract(member: Member, *, share: Share) -> Extracted:
    """Extract a share of the features that a run would read from the cache; no run is made.

    Args:
        member: the run.
        share: of its images.

    Raises:
        UserError: data, weights or settings cannot be used, or there are no features to keep, or no room for them.
    """
    with Console() as console, build.build_place(member) as place:
        build.check_buildable(member)
        views = _kept_views(member, watch=console)
        ground = build.build_ground(member, who=f"extraction, {share}", place=place, watch=console, share=share)
        with build.build_lack_notice(member, backbone=ground.backbone):
            materials = build.build_materials([member], ground, watch=console)
            wanted = sum(len(images) for images, _ in seen(materials, views))
            _require_room(materials, num_features=wanted * share.count)
            start = time.perf_counter()
            computed = keep_features(materials, views=views, share=share, unkept=_stop)
            return Extracted(share, wanted, computed, time.perf_counter() - start)


def _kept_views(member: Member, *, watch: Console) -> Sequence[View | None]:
    """Return the views whose features the run keeps, before images are read.

    Raises:
        SettingError: it keeps none.
    """
    strategy, name = build.build_strategy(member), member.choices["strategy"]
    if not strategy.learns_from_features:
        raise SettingError(
            f"strategy={name} has no features to extract; expected one that learns from them, such as feature or lp_ft"
        )
    if not build.keeps_features(member, strategy=strategy, watch=watch):
        raise SettingError(
            "features would not be kept; expected runtime.cache=true, and backbone and augmentation of this package"
        )
    augmentation = build.build_augmentation(member, dataset=build.build_dataset(member))
    if reason := strategy.runs_because(augmentation, build.build_mixing(member)):
        raise SettingError(f"strategy={name} would not read features: {reason}")
    return strategy.kept_views(augmentation)


def _require_room(materials: Materials, *, num_features: int) -> None:
    """See that the first features will not have to go when the last ones come.

    Raises:
        SettingError: they will.
    """
    needed, limit = num_features * materials.backbone.feature_dim * 4, cache_limit()
    if needed > limit:
        raise SettingError(
            f"all features together take {needed / GB:.3g} GB, and all caches may take {limit / GB:.3g} GB; "
            f"raise {LIMIT}"
        )


def _stop(fault: str) -> None:
    raise RunFailed(fault)
