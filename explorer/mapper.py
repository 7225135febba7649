"""The abstract mapper: betas in, embeddings out, saved beside the card that says what it fits.

A checkpoint folder holds ``card.json`` and ``model.safetensors`` and nothing else. The hub mixin
of ``huggingface_hub`` is not used: it loads non-strictly by default, turns nested dataclasses into
dicts, writes a second description next to the card and looks on the network for a folder that is
not there. The card says all that is needed to build the class again.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from explorer.files import reason, sha256_of
from explorer.folders import held, replacing
from explorer.metrics import varies
from explorer.types import CARD, WEIGHTS, Card, EmbeddingSpace, Trials, UserError

ROWS_AT_ONCE = 512  # of betas, when they are read from disk: 30 MB at 15,000 voxels


class Mapper(torch.nn.Module, abc.ABC):
    """Betas of a subject -> raw embeddings in every target space.

    Parameters
    ----------
    targets
        The spaces of its outputs.
    voxels
        The number of voxels of each subject it knows, e.g. ``{"sub-01": 4096}``. Training mean
        and standard deviation of each voxel are buffers (0 and 1 until set), so one trial decodes
        alone and always the same way.
    **settings
        A subclass's own constructor arguments (JSON-able); it passes them on, and they come back
        from ``card.settings["architecture"]`` when it is loaded.

    Attributes
    ----------
    exact : tuple of str
        Beginnings of the names of tensors that stay float32 in a checkpoint of half the size: the
        voxels' statistics.
    """

    exact: tuple[str, ...] = ("mean_", "sd_")

    def __init__(
        self, targets: Sequence[EmbeddingSpace], voxels: Mapping[str, int], **settings: Any
    ) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.subjects = tuple(voxels)
        self.architecture = dict(settings)
        self.card: Card | None = None
        for subject, count in voxels.items():
            if "." in subject:  # torch separates names in a state by dots
                raise UserError(
                    f"A mapper cannot be made for the subject {subject!r}: its name has a dot; "
                    "rename the subject."
                )
            self.register_buffer(f"mean_{subject}", torch.zeros(count))
            self.register_buffer(f"sd_{subject}", torch.ones(count))

    @abc.abstractmethod
    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit.

        Differentiable, standardises by itself, and row i depends on trial i alone.
        """

    @classmethod
    @abc.abstractmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> Self:
        """Return a mapper trained on the training rows of ``trials``, one entry a subject.

        ``targets``: space -> stimulus -> embedding (...) of the space's shape, for every training
        stimulus. ``seed`` decides all that is drawn; ``progress`` is called with a sentence now
        and then.
        """

    def statistics(self, subject: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the training mean and standard deviation (V,) of a subject's voxels."""
        if subject not in self.subjects:
            raise UserError(
                f"This mapper knows the subject(s) {', '.join(self.subjects)}, not {subject!r}; "
                "train one for that subject."
            )
        return getattr(self, f"mean_{subject}"), getattr(self, f"sd_{subject}")

    def set_statistics(self, trials: Trials) -> None:
        """Take mean and standard deviation from the training rows; a constant voxel gets SD 1."""
        mean, sd = training_statistics(trials)
        for buffer, value in zip(self.statistics(trials.subject.name), (mean, sd), strict=True):
            buffer.copy_(torch.from_numpy(value))

    def standardise(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Return betas (n, V) in units of the subject's training standard deviation, centred."""
        mean, sd = self.statistics(subject)
        if betas.ndim != 2 or betas.shape[1] != len(mean):
            raise UserError(
                f"The mapper for {subject} reads betas of shape (trials, {len(mean)}), found "
                f"{tuple(betas.shape)}; choose a mapper trained on these voxels."
            )
        return (betas - mean) / sd

    @torch.inference_mode()
    def decode(self, betas: np.ndarray, subject: str) -> dict[EmbeddingSpace, np.ndarray]:
        """Return raw embeddings float32 (n, ...) per target for betas (n, V), no gradient."""
        mean, _ = self.statistics(subject)
        rows = torch.as_tensor(np.asarray(betas, dtype=np.float32), device=mean.device)
        return {space: z.float().cpu().numpy() for space, z in self(rows, subject).items()}

    def voxel_weights(self, subject: str) -> dict[str, int]:
        """Return which tensors have an entry a voxel of a subject, beside mean and deviation.

        Name -> axis; {} where voxels are read in another way than by a linear map of each, or
        where a subclass does not say so.
        """
        return {}

    @torch.inference_mode()
    def decode_alone(
        self, betas: np.ndarray, subject: str, voxels: np.ndarray, space: EmbeddingSpace
    ) -> np.ndarray:
        """Return what `decode` makes of some voxels' betas, all others at the training mean.

        ``betas`` (n, V), ``voxels`` bool (V,). Standardised, the mean is 0 and adds nothing to a
        linear map, so only these voxels and their weights are read, if there are `voxel_weights`.
        """
        mean, _ = self.statistics(subject)
        linear = self.voxel_weights(subject)
        if not linear:
            return self.decode(np.where(voxels, betas, mean.cpu().numpy()), subject)[space]
        chosen = np.flatnonzero(voxels)
        index, own = torch.from_numpy(chosen).to(mean.device), self.state_dict()
        axes = {f"mean_{subject}": 0, f"sd_{subject}": 0} | linear
        some = {name: own[name].index_select(axis, index) for name, axis in axes.items()}
        rows = torch.as_tensor(np.asarray(betas[:, chosen], np.float32), device=mean.device)
        found = torch.func.functional_call(self, some, (rows, subject))
        return found[space].float().cpu().numpy()

    def save_pretrained(self, folder: str | Path, card: Card, *, half: bool = False) -> None:
        """Write weights and card into ``folder`` as a whole: an interrupted save changes nothing.

        ``half`` stores floats as float16, except what is ``exact``. The constructor's own settings
        are added to the card as ``settings["architecture"]``.
        """
        state = self.state_dict()
        exact = {name for name in state if name.startswith(self.exact)}
        write_checkpoint(
            folder, state, card, half=half, exact=exact, architecture=self.architecture
        )
        self.card = read_card(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Return a checkpoint folder's mapper: float32, eval mode, weights without gradient.

        Strict: a missing, unknown, misshapen or non-finite tensor raises `UserError`.
        """
        card = read_card(folder)
        if card.kind != "mapper":
            raise UserError(
                f"{folder} holds a checkpoint of kind {card.kind!r}, expected 'mapper'."
            )
        voxels = {subject: card.voxels[subject][0] for subject in card.subjects}
        try:
            mapper = cls(card.targets, voxels, **card.settings.get("architecture", {}))
        except UserError:
            raise
        except Exception as error:  # whatever a network raises of sizes that it cannot have
            raise UserError(
                f"The card in {folder} describes another version of {cls.__name__} "
                f"({reason(error)}); train it again."
            ) from error
        mapper.load_state_dict(read_weights(folder, mapper.state_dict()))
        mapper.card = card
        return mapper.to(device).float().eval().requires_grad_(False)


def training_statistics(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation float32 (V,) over the training rows, read in blocks.

    Divides by n; a voxel that never varies gets 1, so that it standardises to 0.
    """
    rows = trials.rows("train")
    if not len(rows):
        raise UserError(
            f"{trials.subject.dataset}/{trials.subject.name} has no training trial to learn from."
        )
    total = np.zeros(trials.subject.voxels.n_voxels)
    blocks = [rows[i : i + ROWS_AT_ONCE] for i in range(0, len(rows), ROWS_AT_ONCE)]
    for block in blocks:
        total += np.asarray(trials.betas[block], dtype=np.float64).sum(axis=0)
    if not np.isfinite(total).all():
        voxel = int(np.flatnonzero(~np.isfinite(total))[0])
        raise UserError(
            f"{trials.subject.dataset}/{trials.subject.name} has training betas that are not "
            f"finite (first in voxel {voxel}); leave that voxel or those trials out."
        )
    mean, squares = total / len(rows), np.zeros_like(total)
    for block in blocks:  # second pass: subtracting first keeps small variances exact
        squares += np.square(np.asarray(trials.betas[block], dtype=np.float64) - mean).sum(axis=0)
    sd = np.sqrt(squares / len(rows))
    return mean.astype(np.float32), np.where(varies(mean, sd), sd, 1.0).astype(np.float32)


def read_card(folder: str | Path) -> Card:
    """Return the card of a checkpoint folder; a missing or damaged one raises `UserError`."""
    path = Path(folder) / CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: a checkpoint is a folder with {CARD} and weights."
        ) from error
    except (ValueError, RecursionError, OSError) as error:  # no text, no JSON, too deep
        raise UserError(
            f"{path} cannot be read as JSON ({reason(error)}); copy it again."
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}, expected an object with fields.")
    try:
        card = Card.from_dict(values)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    missing = [subject for subject in card.subjects if subject not in card.voxels]
    if missing:
        raise UserError(
            f"{path} names the subject {missing[0]!r} but not its voxels; train it again."
        )
    return card


def write_card(
    folder: str | Path, card: Card, architecture: Mapping[str, Any] | None = None
) -> None:
    """Write ``card.json`` into an existing folder, whole or not at all."""
    values = card.to_dict()
    if architecture:
        values["settings"] = {**values["settings"], "architecture": dict(architecture)}
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = Path(folder) / f".{CARD}.part"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(Path(folder) / CARD)


def write_checkpoint(
    folder: str | Path,
    state: Mapping[str, torch.Tensor],
    card: Card,
    *,
    half: bool = False,
    exact: Collection[str] = (),
    architecture: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and card into ``folder`` as a whole: an interrupted save changes nothing.

    ``half`` stores floats as float16 except the tensors named in ``exact``. Serves any kind of
    checkpoint: mappers, embedders, generators.
    """
    from safetensors.torch import save_file

    stored = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if half and name not in exact and tensor.is_floating_point():
            tensor = tensor.half()
        if not _is_finite(tensor):
            raise UserError(
                f"{name} holds values that are not finite{' in float16' if half else ''}; "
                f"{folder} was not written."
            )
        stored[name] = tensor
    with held(Path(folder), "save"), replacing(Path(folder)) as fresh:
        save_file(stored, fresh / WEIGHTS)
        (fresh / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
        card = replace(card, sha256={WEIGHTS: sha256_of(fresh / WEIGHTS)})
        write_card(fresh, card, architecture=architecture)  # last: with it the folder is whole


def is_whole(folder: Path) -> bool:
    """Say whether a checkpoint folder has a card and the weights that the card was written for.

    Of weights from before cards had a checksum: whether they are as long as their header says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_weights(folder / WEIGHTS, read_card(folder))
        with safe_open(folder / WEIGHTS, "pt"):
            return True
    except (UserError, OSError, SafetensorError):
        return False


def check_weights(path: Path, card: Card) -> None:
    """Refuse weights that are not as they were written; cards before 2026-11-27 do not tell."""
    written = card.sha256.get(path.name)
    if written and path.is_file() and sha256_of(path) != written:
        raise UserError(
            f"{path} is not as it was written: its SHA-256 is not the one on its card; copy it "
            "again, or train it again."
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    """Say whether no value is infinite or NaN, without a copy of gigabytes of weights."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(bool(value.isfinite()) for value in tensor.aminmax())  # NaN is passed on


def read_weights(
    folder: str | Path, expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint as float32 after comparing them with what is expected."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / WEIGHTS
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: a checkpoint is a folder with {CARD} and weights."
        ) from error
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it again.") from error
    odd = sorted(set(state) ^ set(expected))
    if odd:
        raise UserError(
            f"{path} has {len(state)} tensors, expected {len(expected)}; {odd[0]!r} is "
            f"{'unknown' if odd[0] in state else 'missing'}: it belongs to another version or "
            "class."
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name!r} has shape {tuple(tensor.shape)}, its card says "
                f"{tuple(expected[name].shape)}; weights and card do not belong together."
            )
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise UserError(
                f"{path}: {name!r} holds numbers of the type {tensor.dtype}, expected "
                f"{expected[name].dtype}; quantised weights are not read here."
            )
        if not _is_finite(tensor):
            raise UserError(f"{path}: {name!r} holds values that are not finite; copy it again.")
    if (Path(folder) / CARD).is_file():
        check_weights(path, read_card(folder))  # last: what is told before says more
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
