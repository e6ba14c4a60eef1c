"""Features of a whole split: read where they are known, extracted where they are not."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from tl_experiments.data.images import Images
from tl_experiments.data.transforms import Normalise, to_device
from tl_experiments.data.watch import Watch
from tl_experiments.features.extract import Extractor, Mirrored, View, make_extractor
from tl_experiments.features.key import feature_fields, weights_of
from tl_experiments.models.backbone import Backbone
from tl_experiments.runtime.precision import Compute
from tl_experiments.runtime.row_store import RowStore, once
from tl_experiments.runtime.share import BLOCK, WHOLE, Share

KEPT_AT_ONCE = 32 * BLOCK  # images whose features are in memory only to be written


class FeatureStore:
    """The features that one backbone gives, kept by content: an image that any run has seen is never seen again."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        normalise: Normalise,
        compute: Compute,
        cached: bool,
        watch: Watch,
        share: Share = WHOLE,
        unkept: Callable[[str], None] | None = None,
    ) -> None:
        """Digest the backbone; nothing is computed yet.

        Args:
            backbone: frozen, on the device and in the layout of `compute`; put into eval mode.
            normalise: of the backbone.
            compute: where and how.
            cached: keep features from run to run; the bits are the same without.
            watch: told of long work and, once, of a cache that fails.
            share: of the images that all workers want together, which this one extracts: it waits for no other share.
            unkept: told why features cannot be kept, and may raise; by default the watch is told, and they are not.
        """
        self._backbone, self._normalise, self._compute = backbone, normalise, compute
        self._weights = weights_of(backbone) if cached else None
        self._watch, self._notice = watch, once(watch.notice)
        self._share, self._unkept = share, unkept
        self._extractor: Extractor | None = None

    def features(self, images: Images, *, view: View | Mirrored | None = None) -> torch.Tensor:
        """Return the features of a split, float32 (N, D), on the device; several processes share the work.

        Args:
            images: N canvases.
            view: of these; None is the centre crop.

        Raises:
            DataError: an image that must be decoded cannot be.
        """
        ranks = self._compute.ranks
        own = ranks.places(0, len(images))
        rows = torch.empty(len(own), self._backbone.feature_dim)

        def extract(positions: np.ndarray) -> Iterator[torch.Tensor]:
            return self._extract(images, own[positions], view)

        if self._weights is not None:
            self._rows(self._weights, images, view).fill(rows, images.digests.take(own), extract)
        elif len(own):
            torch.cat(list(extract(np.arange(len(own)))), out=rows)
        return ranks.gather(to_device(rows, self._compute.device), count=len(images))

    def keep(
        self, images: Images, *, view: View | Mirrored | None = None, positions: Sequence[int] | None = None
    ) -> int:
        """Extract what is not known of a split, for whoever wants its features later.

        Args:
            images: N canvases.
            view: of these; None is the centre crop.
            positions: of those that are wanted, ascending; None: all.

        Returns:
            How many images were seen; equal ones count once.

        Raises:
            DataError: an image that must be decoded cannot be.
            ValueError: the store is not cached.
        """
        if self._weights is None:
            raise ValueError("features are kept in a cache alone")
        wanted = np.arange(len(images)) if positions is None else np.array(positions, dtype=np.int64)
        store = self._rows(self._weights, images, view)
        store.expect(images.digests.take(wanted).array())
        size = max(1, len(wanted)) if images.fit else KEPT_AT_ONCE  # where canvases fit, features do
        rows = torch.empty(min(size, len(wanted)), self._backbone.feature_dim)
        num_seen = 0
        for block in (wanted[start : start + size] for start in range(0, len(wanted), size)):
            num_seen += store.fill(
                rows[: len(block)],
                images.digests.take(block),
                lambda missing, block=block: self._extract(images, block[missing], view),
            )
        return num_seen

    def _rows(self, weights_sha256: str, images: Images, view: View | Mirrored | None) -> RowStore:
        fields = feature_fields(
            backbone=self._backbone,
            weights_sha256=weights_sha256,
            canvas=images.canvas,
            normalise=self._normalise,
            compute=self._compute,
            view=view,
        )
        shape = (self._backbone.feature_dim,)
        return RowStore(
            kind="features",
            fields=fields,
            row_shape=shape,
            dtype=torch.float32,
            notice=self._notice,
            share=self._share,
            unkept=self._unkept,
        )

    def _extract(self, images: Images, positions: np.ndarray, view: View | Mirrored | None) -> Iterator[torch.Tensor]:
        """Run the backbone; what it takes to be fast is prepared when it is first needed."""
        alone = self._compute.ranks.is_alone  # several decode together, or not at all
        if (
            alone
            and isinstance(view, View)
            and images.fit
            and len(positions) * (view.num_views - view.number) > len(images)
        ):
            # This view and those that follow would decode more images than there are.
            images.decode(device=self._compute.device, work=self._watch.work)
        if self._extractor is None:
            size = self._backbone.input_spec.size
            self._extractor = make_extractor(
                self._backbone, size=size, normalise=self._normalise, compute=self._compute
            )
        which = f"{len(positions):,} {images.split} images"
        title = f"extracting features of {which}{_told(view)}"
        outputs = self._extractor.outputs(images, positions, view=view, on_progress=self._watch.work(title))
        return (features.float().cpu() for features in outputs)


def _told(view: View | Mirrored | None) -> str:
    if isinstance(view, View):
        return f", view {view.number + 1} of {view.num_views}"
    return ", mirrored" if view else ""
