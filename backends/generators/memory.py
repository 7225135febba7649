"""Networks on a device: in which numbers, where they lie, and how many rows fit at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    Inputs = dict[str, torch.Tensor]  # what a UNet is told beside latents and time, (n, ...) each

GB = 1e9
ROWS_AT_ONCE = 32  # of a UNet, halved when memory runs out


def best_dtype(device: str) -> torch.dtype:
    """Return the type in which a UNet computes on a device."""
    import torch

    if not device.startswith("cuda"):
        return torch.float32
    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float16


def has_fast_bfloat16(device: str) -> bool:
    """Return whether products in bfloat16 are faster than in float32 on a device.

    On two cores with AVX-512 BF16 a sweep takes half the time, and the pictures differ by about
    one grey level at most from those in float32.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 cannot tell
    able = ask() if ask else {}
    return device == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def free_memory(device: str) -> int | None:
    """Return the free bytes of a GPU; None where memory is not watched."""
    import torch

    if not device.startswith("cuda"):
        return None
    return torch.cuda.mem_get_info(device)[0]


def place(network: torch.nn.Module, device: str, working: float) -> str:
    """Put a network on a device as its free memory allows, and say how.

    "whole" where twice the memory of one row's work is left beside the weights, "sliced" where
    attention must be computed in slices, "offloaded" where the weights come over layer by layer.

    Parameters
    ----------
    working
        Bytes that one row's activations take.
    """
    import torch

    free = free_memory(device)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    if free is not None and free < weights + working:
        from accelerate import cpu_offload

        cpu_offload(network, execution_device=torch.device(device))
        return "offloaded"
    network.to(device)
    # slices replace all attention processors, and with them an adapter's
    plain = getattr(network, "encoder_hid_proj", ...) is None
    if free is not None and free < weights + 2 * working and plain:
        network.set_attention_slice("auto")
        return "sliced"
    return "whole"


def slower(name: str, what: str, device: str, placement: str) -> list[str]:
    """Return the remark about a network that does not lie whole on a device, [] where it does.

    ``name``: of the generator; ``what``: its network; ``placement``: as `place` says.
    """
    if placement == "whole":
        return []
    return [
        f"{name} is slower than it could be: for want of free memory on {device}, its {what} is "
        f"{placement}."
    ]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a GPU or the CPU has no memory left."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


class Denoiser:
    """A UNet that is asked for many rows at once, and for fewer where memory runs out.

    Parameters
    ----------
    unet
        A UNet of diffusers, on its device.
    name, size
        Of the generator and its weights, for the sentence when one picture does not fit.
    device, dtype
        Where and in what type it computes.
    added
        What is told to ``unet`` as ``added_cond_kwargs``, from its inputs.
    """

    def __init__(
        self,
        unet: Any,
        name: str,
        size: str,
        device: str,
        dtype: torch.dtype,
        added: Callable[[Inputs], dict[str, Any]] = dict,
    ) -> None:
        self.unet, self.name, self.size = unet, name, size
        self.device, self.dtype, self._added = device, dtype, added
        self.rows_at_once = ROWS_AT_ONCE

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, inputs: Inputs
    ) -> torch.Tensor:
        """Return the prediction float32 (n, C, S, S), in smaller batches if it must be."""
        import torch

        found, begin = [], 0
        while begin < len(latents):
            part = slice(begin, begin + self.rows_at_once)
            told = {name: value[part].to(self.dtype) for name, value in inputs.items()}
            failed = False
            try:
                predicted = self._ask(latents[part].to(self.dtype), timestep, told)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failed = True  # what follows is outside: the error keeps tensors alive
            if failed:
                self._take_fewer(len(latents[part]))
                continue
            # a UNet that also predicts variances gives them as further channels
            found.append(predicted[:, : latents.shape[1]].float())
            begin = part.stop
        return torch.cat(found)

    def _ask(self, latents: torch.Tensor, timestep: torch.Tensor, told: Inputs) -> torch.Tensor:
        """Return what a UNet says of one batch; other networks are asked in their own way."""
        return self.unet(
            latents,
            timestep,
            encoder_hidden_states=told.get("context"),
            class_labels=told.get("class_labels"),
            added_cond_kwargs=self._added(told) or None,
        ).sample

    def _take_fewer(self, rows: int) -> None:
        """Halve the rows of a batch that did not fit; one row alone raises `UserError`."""
        if rows == 1:
            raise self.no_room()
        self.rows_at_once = rows // 2
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    @contextmanager
    def one_picture(self) -> Iterator[None]:
        """Say in a sentence that what is done for a single picture does not fit."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise self.no_room() from error

    def no_room(self) -> UserError:
        """Return what to say where one picture does not fit."""
        free = free_memory(self.device)
        left = f", with {free / GB:.1f} GB free" if free is not None else ""
        return UserError(
            f"{self.name} ran out of memory on {self.device} with a single picture{left}; close "
            f"other programs, use a device on which its weights ({self.size}) and a few GB more "
            "fit, or choose pocket-diffusion."
        )
