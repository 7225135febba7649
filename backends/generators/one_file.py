"""Networks that were published in one file of a training, in the place of diffusers' folders.

What a training saved, read by names; what it holds beside tensors is not built. Every tensor is
used or left out for a reason that is written down, and stays in the file until it is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.files import hash_of_files
from backends.generators.sgm_names import filled
from backends.generators.weights import Part, Weights
from explorer.files import damaged, plain_tensor, reason
from explorer.inert import read_inert
from explorer.types import UserError, resolve

if TYPE_CHECKING:
    import torch

    Converted = tuple[dict[str, Any], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Layout:
    """How a file keeps its networks.

    ``title``: of the file, for messages. ``within``: the entry that holds the tensors, where there
    is one. ``networks``: beginnings of their names, by folder. ``left_out``: beginnings of names
    without a place, and why. ``schedule``: the configuration of its noise schedule. ``read``: what
    makes a network's configuration and state of its tensors. ``noise``: the name of noise levels
    that must be those of ``schedule``, which ``levels`` gives as ``betas`` or ``sigmas``;
    ``unlike`` says that they are not.
    """

    title: str
    within: str
    networks: Mapping[str, str]
    left_out: Mapping[str, str]
    schedule: Mapping[str, Any]
    read: Mapping[str, Callable[[Mapping[str, torch.Tensor]], Converted]]
    noise: str = ""
    levels: str = "betas"
    unlike: str = "its noise schedule is not the published one"


class OneFile(Weights):
    """The networks that draw in one file of a training; a family says where people get it.

    Parameters
    ----------
    checkpoint
        The file.
    layout
        How it keeps its networks.
    name, hub, size, parts
        As `Weights`.
    """

    def __init__(
        self,
        checkpoint: Path,
        layout: Layout,
        name: str,
        hub: str,
        size: str,
        parts: tuple[Part, ...],
    ) -> None:
        self.checkpoint, self.layout = checkpoint, layout
        super().__init__(name, hub, size, parts, checkpoint.parent, checkpoint)

    @property
    def again(self) -> str:
        """What a person can do where the file is not what it should be."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Names the exact file; reading it takes seconds, so it is made when asked for."""
        return hash_of_files(self.checkpoint)

    def path(self, part: Part) -> Path:
        """Return the file, in which all parts lie."""
        return self.checkpoint

    def config(self, part: Part) -> dict[str, Any]:
        """Return the configuration of a part."""
        if part.folder == "scheduler":
            return dict(self.layout.schedule)
        return self._converted(part.folder)[0]

    def load(self, part: Part, dtype: torch.dtype | None = None) -> Any:
        """Return a part's network in eval mode and without gradients, on the CPU.

        ``dtype``: of its numbers, None for float32.
        """
        import torch

        config, state = self._converted(part.folder)
        cls = resolve(part.cls)
        known = inspect.signature(cls.__init__).parameters
        config = {key: value for key, value in config.items() if key in known}
        try:
            return filled(lambda: cls(**config), state, dtype or torch.float32)
        except Exception as error:  # whatever diffusers says of sizes that do not fit
            raise self._foreign(reason(error)) from error

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """Its tensors by their published names; each of them has a place or is left out."""
        found, _ = read_inert(self.checkpoint, self.again)
        found = found.get(self.layout.within, found) if isinstance(found, Mapping) else found
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise self._foreign("it holds no tensors by name")
        known = (*self.layout.networks.values(), *self.layout.left_out)
        if lost := [name for name in found if not name.startswith(known)]:
            raise self._foreign(f"nothing is known of {', '.join(lost[:3])}")
        self._check_schedule(found.get(self.layout.noise))
        return dict(found)

    def _find(self, source: str | Path | None) -> dict[str, Path]:
        return dict.fromkeys([self.hub, *(part.hub for part in self.parts)], self.usual)

    def _check(self, part: Part) -> None:
        config = self.config(part)
        for key, expected in part.expects.items():
            if config.get(key) != expected:
                raise self._foreign(f"its {key} is {config.get(key)}, expected {expected}")

    def _own(self, folder: str) -> dict[str, torch.Tensor]:
        begin = self.layout.networks[folder]
        return {
            name[len(begin) :]: plain_tensor(value, f"{self.checkpoint}: {name}")
            for name, value in self.state.items()
            if name.startswith(begin) and not name.startswith(tuple(self.layout.left_out))
        }

    def _converted(self, folder: str) -> Converted:
        try:
            return self.layout.read[folder](self._own(folder))
        except ValueError as error:
            begin = self.layout.networks[folder]
            raise self._foreign(f"of {begin}* {reason(error)}") from error

    def _check_schedule(self, levels: Any) -> None:
        import torch
        from diffusers import DDIMScheduler

        if levels is None:
            return
        ours = DDIMScheduler.from_config(self.layout.schedule)
        kept = ours.alphas_cumprod
        expected = ours.betas if self.layout.levels == "betas" else ((1 - kept) / kept).sqrt()
        found = plain_tensor(levels, f"{self.checkpoint}: {self.layout.noise}").float()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3):
            raise self._foreign(self.layout.unlike)

    def _foreign(self, why: str) -> UserError:
        return damaged(self.checkpoint, why, self.layout.title, self.again)
