"""From the images of a request to its answer: decoded beside the event loop, classified in company."""

import asyncio
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import torch

from tl_experiments.data.decoding import ImageError, decode
from tl_experiments.data.transforms import centre_crop, draw
from tl_experiments.explain.overlay import overlay
from tl_experiments.explain.saliency import Explanation, explain
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.runtime.errors import SettingError
from tl_experiments.serve.answers import Failure, Prediction, prediction
from tl_experiments.serve.batching import Batches, Place
from tl_experiments.serve.limits import Limits, Refused, busy
from tl_experiments.serve.metrics import Metrics
from tl_experiments.serve.uploads import Upload

T = TypeVar("T")
NOTHING = "nothing"
MOST_EXPLAINING = 8  # at once: each keeps the network from whoever wants an answer alone


@dataclass(frozen=True)
class Explained:
    """An explanation as a picture.

    Attributes:
        png: the image under its heat map.
        shows: gradcam, what speaks for the class; gradients, which pixels matter for it; nothing, that none does.
    """

    png: bytes
    shows: str


class Answering:
    """Answers for one classifier; `with` keeps its threads."""

    def __init__(
        self, classifier: Classifier, *, limits: Limits, wait_seconds: float, workers: int, metrics: Metrics
    ) -> None:
        """Prepare; nothing is computed yet.

        Args:
            classifier: that answers; only the thread of the queue uses it.
            limits: of what is taken.
            wait_seconds: that a batch is held back at most for images that are being decoded.
            workers: threads that decode.
            metrics: that are kept.
        """
        self._classifier, self._limits, self._metrics = classifier, limits, metrics
        # Its batches are filled up, and an explanation wants one image's answer.
        self._one_by_one = replace(classifier, compute=replace(classifier.compute, infer_batch_size=1))
        self._class_names = classifier.description.class_names
        self._batches = Batches(
            self._classify,
            batch_size=classifier.batch_size,
            most_waiting=limits.waiting,
            wait_seconds=wait_seconds,
            notice=metrics.batch,
        )
        metrics.watch_queue(lambda: self._batches.waiting)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decoder")
        self._threads = ExitStack()
        self._num_explaining = 0
        self._warmth: Future[None] = Future()

    def __enter__(self) -> Self:
        self._threads.callback(self._pool.shutdown, cancel_futures=True)
        self._threads.enter_context(self._batches)
        with self._batches.place() as place:
            self._warmth = place.take_alone(self._warm_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.close()

    def _warm_up(self) -> None:
        """Libraries choose and compile their kernels when they first see a size; nobody's request waits for it."""
        side = self._classifier.description.canvas.size
        for count in (1, self._classifier.batch_size):
            self._classify(torch.zeros(count, 3, side, side, dtype=torch.uint8))

    def require_warm(self) -> None:
        """See that the network has warmed up.

        Raises:
            Refused: not yet; 503.
            Exception: it cannot.
        """
        if not self._warmth.done():
            raise busy("the model is warming up")
        self._warmth.result()

    @torch.inference_mode()
    def _classify(self, canvases: torch.Tensor) -> torch.Tensor:
        """Classify a batch as it is: filled up to `batch_size`, a lone image would cost as much as a whole batch."""
        compute = self._classifier.compute
        with compute.infer.autocast():
            return self._classifier.network(canvases.to(compute.device, non_blocking=True)).float().cpu()

    async def predict(self, uploads: list[Upload], *, top_k: int) -> list[Prediction | Failure]:
        """Classify the images of a request.

        Raises:
            Refused: too many images wait, or none of these can be used.
        """
        with ExitStack() as stack:
            places = [stack.enter_context(self._batches.place()) for _ in uploads]
            ways = (self._predict_one(upload, place, top_k) for upload, place in zip(uploads, places, strict=True))
            async with asyncio.TaskGroup() as group:  # where one fails, the others leave the queue
                tasks = [group.create_task(way) for way in ways]
        found = [task.result() for task in tasks]
        failures = [one for one in found if isinstance(one, Failure)]
        if len(failures) == len(found):
            first = failures[0].error
            raise Refused(422, first if len(found) == 1 else f"none of {len(found)} images can be used: {first}, ...")
        return found

    async def _predict_one(self, upload: Upload, place: Place, top_k: int) -> Prediction | Failure:
        try:
            canvas = await self._in_pool(self._draw, upload)
        except ImageError as error:
            self._metrics.image("refused")
            return Failure(filename=upload.name, error=str(error))
        probabilities = await asyncio.wrap_future(place.take(canvas))
        self._metrics.image("classified")
        return prediction(upload.name, probabilities, class_names=self._class_names, top_k=top_k)

    async def explain(self, upload: Upload, *, label: str | None) -> Explained:
        """Show what in an image speaks for a class.

        Args:
            upload: the image.
            label: the class; None is the most probable.

        Raises:
            Refused: too many images wait or are being explained, or this one cannot be used.
        """
        target = None if label is None else self._class_names.index(label)
        with self._explaining(), self._batches.place() as place:
            try:
                canvas = torch.from_numpy(await self._in_pool(self._draw, upload))
            except ImageError as error:
                self._metrics.image("refused")
                raise Refused(422, str(error)) from error
            work = partial(explain, self._one_by_one, canvas, target=target)
            try:
                explanation = await asyncio.wrap_future(place.take_alone(work))
            except SettingError as error:  # of a network that gives no gradients
                raise Refused(422, str(error)) from error
        self._metrics.image("explained")
        png = await self._in_pool(self._overlaid, canvas, explanation)
        return Explained(png, NOTHING if explanation.is_flat else explanation.method)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        if self._num_explaining >= MOST_EXPLAINING:
            raise busy(f"{MOST_EXPLAINING} images are being explained already")
        self._num_explaining += 1
        try:
            yield
        finally:
            self._num_explaining -= 1

    def _draw(self, upload: Upload) -> np.ndarray:
        image = decode(upload.content, name=upload.shown, most_pixels=self._limits.pixels)
        return draw(image, self._classifier.description.canvas)

    async def _in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _overlaid(self, canvas: torch.Tensor, explanation: Explanation) -> bytes:
        crop = centre_crop(canvas, self._classifier.description.canvas.crop).numpy()
        file = io.BytesIO()
        overlay(crop, explanation.heat).save(file, "PNG")
        return file.getvalue()
