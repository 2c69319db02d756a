"""OFA, the class that users hold."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image

from ..checkpoint.card import CardScore, model_card
from ..checkpoint.hub import SCHEME, upload
from ..checkpoint.image_codes import VQGAN_FILE, StoredVQGAN, write_vqgan
from ..checkpoint.model_dir import save_directory
from ..errors import OFAError
from ..heads.arguments import as_list, unwrap
from ..heads.pipeline import EncodedImage, Picture
from ..inference.fast_model import refresh
from ..version import __version__
from ..vision.vqgan import VQGAN
from .decisions import DecisionMethods
from .devices import as_dtype, check_device
from .dialogs import DialogMethods
from .grounding import GroundingMethods
from .pictures import PictureMethods
from .streaming import streaming
from .texts import TextMethods


class OFA(GroundingMethods, DialogMethods, TextMethods, DecisionMethods, PictureMethods):
    """A loaded model with everything it needs to answer questions about pictures.

    A picture is a path, a PIL image, an array [h, w, 3] of uint8, a tensor [3, h, w], encoded bytes, an open file, what
    :meth:`look` made of one, or anything else of :data:`~ofa_core.vision.images.ImageLike`. Phone pictures are turned
    upright as their EXIF data say, and boxes lie in the upright picture; ``pipeline.transform.like_original = True``
    reads files as the original does. Every method takes one picture or a list of pictures of any sizes (an array or a
    pandas Series too) and then returns a list. One text goes with every picture of a list, and a list of texts goes
    with one picture; boxes and dialogs come one for each picture. Of an iterator, such as a generator, a method returns
    one, too: it reads ``batch_size`` samples, gives their answers, and reads on when these were taken.

    A picture is read when its turn comes, and of a long list only two batches are held. With ``progress`` a bar tells
    how far a call has come. With ``on_error="skip"`` a sample that cannot be answered, such as one with a damaged file,
    gives None and a warning, instead of an error for all.

    ``options`` are :class:`~ofa_core.GenerationOptions` to change, by name. ``batch_size`` is how many samples are
    computed at once. ``prompt`` replaces the text the model was trained with. All methods raise :class:`OFAError` where
    a picture cannot be read, a text or list is empty, lists do not pair up, or an option does not exist.

    With ``optimize`` the modules of ``model`` change their classes to faster ones, in place, as :func:`optimized` says:
    several times faster, at more memory, and equal within rounding. Without it they are the plain ones. ``int8`` rounds
    the weights of linear layers to 8 bits, which is no longer equal; ``compile_steps`` decodes through
    ``torch.compile``. One model has one way to answer: the last :class:`OFA` made of it decides.

    Whatever is done to :attr:`model` counts at the next answer: hooks, layers that are replaced, weights that are
    written to. Weights are compared by a sample of their values, so a write to a few of them through ``.data``, of
    which torch keeps no count, may go unseen; :meth:`refresh` is for that.

    Args:
        model: the network, in evaluation mode.
        tokenizer: its tokenizer.
        optimize: whether to compute faster.
        int8: whether to round the weights of linear layers to 8 bits.
        compile_steps: whether decoding steps go through ``torch.compile``.
        vqgan: the network that makes pictures of image codes, or what loads it where it is needed.

    Raises:
        OFAError: ``int8`` or ``compile_steps`` without ``optimize``, or int8 where it cannot be computed.
    """

    @overload
    def look(self, image: Picture) -> EncodedImage: ...
    @overload
    def look(self, image: list[Any]) -> list[EncodedImage]: ...
    @overload
    def look(self, image: Iterator[Any]) -> Iterator[EncodedImage]: ...
    @streaming
    def look(self, image: Any) -> Any:
        """Run the image stem once: every method takes the result in place of the picture, at the same results.

        Examples:
            >>> seen = ofa.look(picture)
            >>> ofa.ground(seen, "the red circle").text == ofa.ground(picture, "the red circle").text
            True
        """
        images, single = as_list(image, self.pipeline.keep)
        return unwrap(self.pipeline.look(images), single)

    def refresh(self) -> None:
        """Take all weights of :attr:`model` anew: after a write to a few of them that torch keeps no count of.

        Examples:
            >>> ofa.refresh()
        """
        refresh(self.model)

    def warm_up(self) -> None:
        """Answer once about a blank picture: what the first answer packs and computes for all others is done then.

        A first answer takes about twice the time of the next on a CPU. Services do this before they listen.

        Examples:
            >>> ofa.warm_up()
        """
        side = self.pipeline.transform.size
        self.generate(" what does the image describe?", Image.new("RGB", (side, side)), max_new_tokens=2)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> OFA:
        """Move the model to a device, and let it compute in another type; in place, as torch's modules do.

        Args:
            device: where it shall run, such as ``"cuda"``; None leaves it where it is.
            dtype: float32, float16 or bfloat16, or its name; None leaves it as it is.

        Returns:
            The same model.

        Raises:
            OFAError: the device is not there, the type is none, or one of both is int8, which is chosen at loading.

        Examples:
            >>> ofa.to("cpu", "float32").device.type
            'cpu'
        """
        wanted = as_dtype(dtype)
        if wanted == torch.int8 or (self._int8 and (wanted is not None or torch.device(device or "cpu").type != "cpu")):
            raise OFAError("int8 is chosen when a model is loaded, and stays on the CPU: load(..., dtype='int8')")
        if device is not None:
            check_device(device)
        self.model.to(device=device, dtype=wanted)
        if isinstance(self._vqgan, StoredVQGAN):
            self._vqgan = replace(self._vqgan, device=self.device, dtype=wanted or self._vqgan.dtype)
        elif isinstance(self._vqgan, VQGAN):
            self._vqgan.to(device=device, dtype=wanted)
        return self

    def save(self, directory: str | PathLike[str], *, card: str | None = None, overwrite: bool = False) -> None:
        """Write the model as a directory that :func:`load` takes, which appears whole or not at all.

        The network of image codes goes with it, where there is one.

        Args:
            directory: the directory.
            card: its README.md; None writes one with architecture, task and how to load it.
            overwrite: replace a model directory that exists.

        Raises:
            CheckpointError: ``directory`` exists, or the network was changed to one that its configuration does not
                describe, such as by adapters of other libraries: these are merged first.

        Examples:
            >>> ofa.save("my-model")
            >>> ofa_core.load("my-model").config == ofa.config
            True
        """
        state, config = self.model.state_dict(), self.model.config
        card = card or model_card(config, self._parameters(), load=str(directory))
        provenance = {"source": "a model in memory", "source_kind": "OFA.save", "ofa_core": __version__}
        files = {VQGAN_FILE: partial(write_vqgan, state=self.vqgan.state_dict())} if self.draws else {}
        save_directory(
            directory, state, config, self.tokenizer, provenance, card=card, overwrite=overwrite, files=files
        )

    def push_to_hub(
        self, repository: str, *, private: bool = False, data: Sequence[str] = (), scores: Sequence[CardScore] = ()
    ) -> str:
        """Put the model, with a model card, into a repository of the Hugging Face hub, which is made if need be.

        Args:
            repository: ``org/name``.
            private: whether a new repository is private.
            data: names of what it was trained on, for the card.
            scores: results of benchmarks, for the card.

        Returns:
            The address of the repository.

        Raises:
            CheckpointError: huggingface_hub is not installed, or the hub refuses it; and as :meth:`save`.

        Examples:
            >>> ofa.push_to_hub("me/my-model", private=True)  # doctest: +SKIP
        """
        config, parameters = self.model.config, self._parameters()
        card = model_card(config, parameters, load=f"{SCHEME}{repository}", data=data, scores=scores)
        with tempfile.TemporaryDirectory() as place:
            self.save(Path(place) / "model", card=card)
            return upload(Path(place) / "model", repository, private=private, message="Model of ofa_core")
