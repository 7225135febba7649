"""DDIM without added noise (eta 0) on the noise schedule that a published UNet was trained with.

Song et al. 2021, arXiv 2010.02502, eq. 12. Each step leads to the noise level at which the next
one asks: diffusers' own scheduler goes by a fixed stride, which misses it where the configuration
spaces steps other than "leading".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backends.generators.guidance import Level
from explorer.files import reason
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

# latents (n, ...) and a step, 0-based -> prediction (n, ...)
Again = Callable[["torch.Tensor", int], "torch.Tensor"]
SCHEDULE = ("beta_start", "beta_end", "beta_schedule")
PREDICTS = ("epsilon", "v_prediction")
LONGEST = 100_000  # training steps; published models have 1000


def read_schedule(config: Mapping[str, Any], where: str, other: str) -> dict[str, Any]:
    """Return the configuration that any scheduler of diffusers has saved, as `DDIM` takes it.

    Clean latents are clipped to -1 ... 1 only where the configuration itself says so: schedulers
    that never clip do not save the word, and DDIM's default would. A schedule that DDIM cannot
    follow raises `UserError`.

    Parameters
    ----------
    config
        The content of ``scheduler_config.json``.
    where, other
        Its file, and how other weights are named, for the message.
    """
    lacking = [key for key in SCHEDULE if config.get(key) is None]
    predicts = config.get("prediction_type", PREDICTS[0])
    steps = config.get("num_train_timesteps", 1000)
    if lacking and config.get("trained_betas") is None:
        wrong = f"says no {lacking[0]} (its class is {config.get('_class_name')})"
    elif predicts not in PREDICTS or config.get("use_flow_sigmas"):
        wrong = f"is for a network that predicts {predicts!r} on a schedule of its own"
    elif config.get("thresholding"):
        wrong = "thresholds pixels, and here are none"
    elif type(steps) is not int or not 1 <= steps <= LONGEST:
        wrong = f"has {steps!r} num_train_timesteps"
    else:
        try:
            DDIM(found := {"clip_sample": False, **config}, 1)
            return found
        except Exception as error:  # whatever diffusers says of entries that do not fit
            wrong = f"does not fit ({type(error).__name__}: {reason(error)})"
    raise UserError(
        f"{where} {wrong}; pictures are drawn by DDIM, which needs {', '.join(SCHEDULE)} and a "
        f"network that predicts noise (epsilon) or velocity (v_prediction); {other}."
    )


def spaced_as_sgm(steps: int, trained: int = 1000) -> list[int]:
    """Return the timesteps of Stability's LegacyDDPMDiscretization, noisy first.

    Cut to whole numbers from an even spacing that leaves out 0 (Stability-AI/generative-models,
    sgm/modules/diffusionmodules/discretizer.py). On them the Euler steps of its EulerEDMSampler
    are those of `DDIM`: with ``x = signal * z``, ``sigma = noise / signal`` and a network that
    predicts eps, ``z' = z + (sigma' - sigma) * eps`` is DDIM's step.
    """
    if not 1 <= steps <= trained:
        raise UserError(f"Steps lie between 1 and {trained} here, found {steps}.")
    if steps == trained:
        return list(range(trained - 1, -1, -1))
    last = trained - 1
    return [int(last - last / steps * k) for k in range(steps)]


class DDIM:
    """The steps from noise to clean latents.

    Parameters
    ----------
    config
        See `read_schedule`.
    steps
        How many.
    timesteps
        Where they ask, noisy first; as diffusers spaces them by ``config`` unless given.

    Attributes
    ----------
    timesteps : list of int
        Of the training schedule, noisy first.
    """

    def __init__(
        self, config: Mapping[str, Any], steps: int, timesteps: Sequence[int] | None = None
    ) -> None:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(config)
        scheduler.set_timesteps(steps)
        self.timesteps = list(timesteps or scheduler.timesteps.tolist())
        self._config, self._kept = scheduler.config, scheduler.alphas_cumprod
        self._final = scheduler.final_alpha_cumprod

    def level(self, step: int) -> Level:
        """Return the noise level at which a step asks, 0-based."""
        return Level(self.timesteps[step], *self._roots(step), self._config.prediction_type)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """Return clean latents (n, ...) with noise as a step finds them, 0-based."""
        signal, spread = self._roots(step)
        return signal * clean + spread * noise

    def step(
        self,
        latents: torch.Tensor,
        prediction: torch.Tensor,
        step: int,
        again: Again | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of the next step, and the clean ones that are expected.

        ``again``: what asks for the prediction at other latents, which only `PLMS` does.
        """
        level, (signal, noise) = self.level(step), self._roots(step + 1)
        clean, eps = level.clean(latents, prediction), prediction
        if level.predicts == "v_prediction":  # Salimans & Ho 2022, arXiv 2202.00512, appendix D
            eps = level.signal * prediction + level.noise * latents
        if self._config.clip_sample:
            clean = clean.clamp(-self._config.clip_sample_range, self._config.clip_sample_range)
        return signal * clean + noise * eps, clean

    def _roots(self, step: int) -> tuple[float, float]:
        """Return how much of picture and of noise there is before a step, and after the last."""
        kept = self._final
        if step < len(self.timesteps):
            kept = self._kept[self.timesteps[step]]
        return float(kept) ** 0.5, (1 - float(kept)) ** 0.5


class PLMS(DDIM):
    """The steps of DDIM with the prediction extrapolated from up to three before it, for one draw.

    Liu et al. 2022, arXiv 2202.09778, as latent diffusion samples (CompVis/latent-diffusion,
    ldm/models/diffusion/plms.py): the first step asks again where it would lead and takes the
    mean; the next are Adams and Bashforth's methods of second to fourth order.
    """

    ORDERS = ((3, -1), (23, -16, 5), (55, -59, 37, -9))

    def __init__(
        self, config: Mapping[str, Any], steps: int, timesteps: Sequence[int] | None = None
    ) -> None:
        super().__init__(config, steps, timesteps)
        self._before: list[torch.Tensor] = []  # predictions, the newest first

    def step(
        self,
        latents: torch.Tensor,
        prediction: torch.Tensor,
        step: int,
        again: Again | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of the next step, and the clean ones that are expected."""
        if not self._before:
            there, _ = super().step(latents, prediction, step)
            then = min(step + 1, len(self.timesteps) - 1)
            used = (prediction + again(there, then)) / 2
        else:
            weights = self.ORDERS[len(self._before) - 1]
            history = [prediction, *self._before]
            used = sum(w * e for w, e in zip(weights, history, strict=True)) / sum(weights)
        self._before = [prediction, *self._before][:3]
        return super().step(latents, used, step)
