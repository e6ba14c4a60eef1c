"""What a strategy gets: a pretrained backbone, images and how they are seen, and where it computes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch.distributed.device_mesh import init_device_mesh

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import Batches, ImageBatches
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.images import Images
from tl_experiments.data.mixing import Mixing
from tl_experiments.data.sampling import Sampler
from tl_experiments.data.transforms import Normalise
from tl_experiments.data.watch import Watch
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import HeadKind
from tl_experiments.models.model import Model
from tl_experiments.models.sharded import empty_copy, gathered, shard
from tl_experiments.runtime.precision import Compute
from tl_experiments.runtime.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Everything that a strategy may use.

    Attributes:
        backbone: pretrained, on the device, in the layout of `compute`.
        num_classes: C.
        images: of the splits.
        augmentation: decided for the dataset.
        mixing: of training images.
        sampler: chooses what an epoch of training sees.
        head: what kind of head is put behind the backbone.
        batch_size: samples of a training step.
        epochs: of training.
        seeds: one per member, K of them.
        compute: where and how.
        cache: whether features are kept from run to run.
        memory_bytes: what activations may take on the device.
        watch: told of long work.
        mirrors: whether the best weights see val and test with mirror images at the end.
    """

    backbone: Backbone
    num_classes: int
    images: DatasetImages
    augmentation: Augmentation
    mixing: Mixing
    sampler: Sampler
    head: HeadKind
    batch_size: int
    epochs: int
    seeds: tuple[int, ...]
    compute: Compute
    cache: bool
    memory_bytes: int
    watch: Watch
    mirrors: bool = False

    @property
    def normalise(self) -> Normalise:
        return Normalise(mean=self.backbone.input_spec.mean, std=self.backbone.input_spec.std)

    @property
    def varies_because(self) -> str | None:
        """As of the function."""
        return varies_because(self.augmentation, self.mixing)

    def new_model(self) -> Model:
        """Put a new head, drawn under the seed of the one member, behind the backbone.

        Raises:
            ValueError: there are several members.
        """
        [seed] = self.seeds
        self.backbone.requires_grad_(False)  # until a phase trains it
        head = self.head.make(
            feature_dim=self.backbone.feature_dim, num_classes=self.num_classes, seed=derive_seed(seed, "head")
        )
        return Model(self.backbone, head if self.compute.shards else head.to(self.compute.device))

    def sharded(self, model: Model) -> Callable[[Model], Model]:
        """Have each process hold a share of a model that is trained whole, where that is wanted.

        Returns:
            What puts it together when it has been trained, as `Workload.finish`.
        """
        if not self.compute.shards:
            return lambda model: model
        skeleton = empty_copy(model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)  # shares know of gradients by what they were made of
        shard(model, mesh=init_device_mesh(self.compute.device.type, (self.compute.ranks.count,)))
        return partial(gathered, skeleton=skeleton)

    def open_images(self) -> "SplitBatches":
        """Return the images themselves, in the order and with the augmentation of the first member's seed.

        Raises:
            DataError: an image cannot be decoded.
        """
        val = self.image_batches(self.images.val)

        def at_the_end() -> tuple[Batches, Batches]:
            test = self.image_batches(self.images.test)
            return replace(val, mirrors=self.mirrors), replace(test, mirrors=self.mirrors)

        train = self.image_batches(self.images.train, seed=self.seeds[0])
        return SplitBatches(train=train, val=val, at_the_end=at_the_end)

    def image_batches(self, images: Images, *, seed: int | None = None) -> ImageBatches:
        """Return a split's images in batches: shuffled and augmented under a seed, else in order and as they are.

        Every image is decoded first where all fit into memory.

        Raises:
            DataError: an image cannot be decoded.
        """
        images.decode(device=self.compute.device, work=self.watch.work, ranks=self.compute.ranks)
        return ImageBatches(
            images=images,
            size=self.backbone.input_spec.size,
            normalise=self.normalise,
            batch_size=self.compute.infer_batch_size if seed is None else self.batch_size,
            device=self.compute.device,
            seed=seed,
            augmentation=None if seed is None else self.augmentation,
            memory_format=self.compute.memory_format,
            sampler=self.sampler,
            mixing=self.mixing,
        )


def varies_because(augmentation: Augmentation, mixing: Mixing) -> str | None:
    """Why every epoch sees other training images; None where all see the same."""
    if mixing.is_on:
        return "images are mixed (mixup_alpha, cutmix_alpha)"
    return "augmentation is random" if augmentation.is_random else None


@dataclass(frozen=True, kw_only=True)
class SplitBatches:
    """The batches of one phase.

    Attributes:
        train, val: of the splits.
        at_the_end: returns val and test as the best weights see them, with mirror images where these are asked for;
            called in the last phase alone, when it is over. Raises DataError: an image cannot be decoded.
    """

    train: Batches
    val: Batches
    at_the_end: Callable[[], tuple[Batches, Batches]]
