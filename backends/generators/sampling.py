"""`sweep` and `generate` of a generator that draws in steps: options, seeds, batches, previews."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from explorer import stopping
from explorer.metrics import match_size
from explorer.protocols import Condition, Moment, Option, Step
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Denoiser

PREVIEWS = 3  # looks at the unfinished pictures of a sweep
AT_THE_END = {"candidates": 1, "refine": 0}  # options of the finished picture alone, and off


class Wanted(NamedTuple):
    """What a picture is of: a condition, a guidance scale and a seed."""

    condition: Condition
    scale: float
    seed: int


class Sampling:
    """Pictures by denoising latents; a generator says how a batch is drawn, and how it is shown.

    A batch has the scales of one condition and seed, or conditions with a seed each at one scale.
    Only rows that matter are computed: no conditional row at scale 0, no unconditional one at
    scale 1, and the first step once for all scales, as they all start from the same noise.

    Attributes
    ----------
    device : str
        Where it computes.
    """

    name: str
    accepts: tuple[EmbeddingSpace, ...]
    options: tuple[Option, ...]
    device: str

    def sweep(
        self,
        condition: Condition,
        scales: Sequence[float],
        steps: int,
        seed: int,
        **options: float,
    ) -> Iterator[Step]:
        """Yield previews and one finished `Step` per scale, as many scales in a batch as fit."""
        how = self._chosen(options)
        looks = {round(steps * k / (PREVIEWS + 1)) for k in range(1, PREVIEWS + 1)}
        for batch in self._batches(len(scales), how):
            part = [float(scale) for scale in scales[batch]]
            drawn = self._draw([condition], part, [seed], steps, how)
            for step, latents in stopping.steps(drawn):
                if step == steps:  # pictures one by one: a large one takes seconds to decode
                    wanted = [Wanted(condition, scale, seed) for scale in part]
                    shown = self._finished(latents, wanted, how)
                elif step in looks:
                    shown = ((image, "") for image in self._previews(latents, how))
                else:
                    continue
                for i, (image, note) in enumerate(shown):
                    at = batch.start + i
                    yield Step(at, part[i], step, steps, image, step == steps, note)

    def generate(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        **options: float,
    ) -> np.ndarray:
        """Return uint8 (n, H, W, 3): each condition's finished picture, with its own seed."""
        drawn = self.noted(conditions, scale, seeds, steps, **options)
        return np.stack([image for image, _ in drawn])

    def noted(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        **options: float,
    ) -> list[tuple[np.ndarray, str]]:
        """Return what `generate` does, one picture each with the note of a finished `Step`."""
        how = self._chosen(options)
        pictures = []
        for batch, latents in self._last(conditions, scale, seeds, steps, how):
            wanted = [
                Wanted(condition, scale, seed)
                for condition, seed in zip(conditions[batch], seeds[batch], strict=True)
            ]
            pictures += self._finished(latents, wanted, how)
        return pictures

    def moments(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seed: int,
        steps: int,
        **options: float,
    ) -> Iterator[Moment]:
        """Yield every step of the conditions' pictures, all from the noise of one seed.

        Of one candidate each, as which is the best is known at the end alone, and not refined.
        """
        import torch

        how = self._chosen(options)
        how |= {name: off for name, off in AT_THE_END.items() if name in how}
        batches = [conditions[batch] for batch in self._batches(len(conditions), how)]
        drawn = [self._draw(part, [scale], [seed] * len(part), steps, how) for part in batches]
        for found in stopping.steps(zip(*drawn, strict=True)):
            latents = torch.cat([part for _, part in found])
            wanted = [Wanted(condition, scale, seed) for condition in conditions]
            images = [image for image, _ in self._finished(latents, wanted, how)]
            yield Moment(found[0][0], np.stack(images), latents.float().cpu().numpy())

    def latents(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        **options: float,
    ) -> torch.Tensor:
        """Return the finished latents float32 (n, C, S, S) of each condition, before decoding."""
        import torch

        found = self._last(conditions, scale, seeds, steps, self._chosen(options))
        return torch.cat([latents for _, latents in found])

    def _last(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        how: Mapping[str, float],
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield a batch of the conditions, and its latents after the last step."""
        if len(conditions) != len(seeds):
            raise UserError(
                f"Give one seed a condition: {len(conditions)} and {len(seeds)} found."
            )
        for batch in self._batches(len(conditions), how):
            drawn = self._draw(conditions[batch], [scale], seeds[batch], steps, how)
            for _, latents in stopping.steps(drawn):
                last = latents
            yield batch, last

    def _batches(self, n: int, how: Mapping[str, float]) -> Iterator[slice]:
        at_once = self._at_once(how)
        for begin in range(0, n, at_once):
            yield slice(begin, begin + at_once)

    def _chosen(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return every option's value; one that is not on offer or out of range is refused."""
        return chosen(self.name, self.options, options)

    def _decoded(self, condition: Condition) -> tuple[EmbeddingSpace, torch.Tensor]:
        """Return the best space of a condition that it draws from, and the embedding there."""
        space = next((space for space in self.accepts if space in condition.embeddings), None)
        if space is None:
            found = ", ".join(space.name for space in condition.embeddings) or "none"
            known = ", ".join(space.name for space in self.accepts)
            raise UserError(
                f"{self.name} draws from {known}, the mapper gave {found}; choose a mapper with "
                "such a target."
            )
        return space, self._tensor(condition.embeddings, space)

    def _tensor(
        self, values: Mapping[EmbeddingSpace, torch.Tensor], space: EmbeddingSpace
    ) -> torch.Tensor:
        """Return what a space holds as float32 of its shape, on the device."""
        return decoded_in(self.name, values, space).to(self.device)

    def _untold(
        self,
        conditions: Sequence[Condition],
        space: EmbeddingSpace,
        otherwise: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Return what each picture is told without the brain: its mapper's null, if it has one.

        ``otherwise``: one a condition, where it has none.
        """
        return [
            self._tensor(one.nulls, space) if space in one.nulls else other
            for one, other in zip(conditions, otherwise, strict=True)
        ]

    # -------------------------------------------------------------------- what a generator decides

    def _at_once(self, how: Mapping[str, float]) -> int:
        """Return how many pictures are drawn in one batch."""
        raise NotImplementedError

    def _draw(
        self,
        conditions: Sequence[Condition],
        scales: Sequence[float],
        seeds: Sequence[int],
        steps: int,
        how: Mapping[str, float],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (1-based step, estimate of the clean latents); after the last the latents.

        ``how``: the value of every option.
        """
        raise NotImplementedError

    def _finished(
        self, latents: torch.Tensor, wanted: Sequence[Wanted], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        """Yield each wanted picture uint8 (H, W, 3), and a note that must stand beside it."""
        raise NotImplementedError

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        """Return rough pictures uint8 (n, H, W, 3); none where latents cannot be shown."""
        raise NotImplementedError


def chosen(
    generator: str, options: Sequence[Option], given: Mapping[str, float]
) -> dict[str, float]:
    """Return every option's value, those given and the defaults; what is not on offer is refused.

    ``generator``: its name, for the message.
    """
    known = {option.name: option for option in options}
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"The generator {generator} has no option {name!r}, it has {', '.join(known)}; "
                "leave it out."
            )
        known[name].check(value)
    return {name: option.default for name, option in known.items()} | dict(given)


def decoded_in(
    generator: str, values: Mapping[EmbeddingSpace, torch.Tensor], space: EmbeddingSpace
) -> torch.Tensor:
    """Return what was decoded in a space, float32 of its shape; what is no number is refused.

    Drawn, it would be a black picture like any other. ``generator``: its name, for the message.
    """
    import torch

    found = torch.as_tensor(values[space]).float().reshape(space.shape)
    if undefined := int((~found.isfinite()).sum()):
        raise UserError(
            f"{generator} draws nothing from {space.name}: {undefined} of its {space.size} "
            "decoded values are NaN or infinite; choose another trial, or train a mapper on betas "
            "and targets without such values."
        )
    return found


class Sources:
    """What draws the noise of pictures: one a seed, and a single one for all scales of a sweep.

    Parameters
    ----------
    seeds
        One a picture, or one for all.
    n
        How many pictures.
    """

    def __init__(self, seeds: Sequence[int], n: int, device: str) -> None:
        self.generators = [source_of_noise(seed) for seed in seeds]
        self.n, self.device = n, device

    def noise(self, shape: Sequence[int]) -> torch.Tensor:
        """Return the next normal noise (n, *shape)."""
        import torch

        drawn = torch.stack([torch.randn(tuple(shape), generator=g) for g in self.generators])
        return drawn.to(self.device).expand(self.n, *shape)


def source_of_noise(seed: int) -> torch.Generator:
    """Return what draws a picture's noise: on the CPU, so the same alone and on any device."""
    import torch

    return torch.Generator().manual_seed(int(seed))


def through(
    encode: Callable[[torch.Tensor], torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
    images: Sequence[np.ndarray],
    side: int,
    device: str,
) -> np.ndarray:
    """Return images uint8 (H, W, 3) through an autoencoder, one at a time: uint8 (n, S, S, 3).

    They are made square, ``side`` pixels wide, which is what generators draw.
    """
    import torch

    found = []
    for image in images:
        values = torch.from_numpy(match_size(image, side, side).copy()).to(device)
        rows = values.permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            found.append(pixels(decode(encode(rows))))
    return np.concatenate(found)


def one_by_one(
    latents: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor], network: Denoiser
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield pictures uint8 (H, W, 3) of latents (n, ...), and no note.

    A decoder takes more memory than the network that drew, which says so where one does not fit.
    """
    for row in latents.split(1):
        with network.one_picture():
            (picture,) = pixels(decode(row))
        yield picture, ""


def pixels(decoded: torch.Tensor) -> np.ndarray:
    """Return uint8 (n, H, W, 3) of pixels (n, 3, H, W) in about -1 ... 1.

    Pixels that are no numbers raise `UserError`: they would be black.
    """
    import torch

    if not decoded.isfinite().all():
        raise UserError(
            "The picture came out as NaN or infinite: numbers grew too large on the way. Choose a "
            "lower guidance scale or weaker pulls, or draw on a CPU (--device cpu)."
        )
    grey_levels = decoded.clamp(-1, 1).add(1).mul(127.5).round()
    return grey_levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
