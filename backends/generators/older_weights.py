"""Weights that were published before safetensors were usual: pickles, read without unpickling.

What lies as safetensors is read as everywhere; for the rest `explorer.inert` builds tensors and
plain containers alone. Every tensor must have a place, as in `Weights`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.files import check_network
from backends.generators.weights import Part, Weights
from explorer.files import plain_tensor
from explorer.inert import read_inert
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

# An autoencoder's attention, as diffusers called it until 0.17, and positions that are counted
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
ATTENTION = re.compile(rf"(\.attentions\.\d+\.)({'|'.join(OLDER)})\.")
COUNTED = "embeddings.position_ids"


class OlderWeights(Weights):
    """The folders of one model, of which some hold ``.bin`` files only."""

    def file(self, part: Part, name: str) -> Path:
        """Return a file of a part; a ``.bin`` stands for safetensors that are not there."""
        found = super().file(part, name)
        if found.is_file() or not name.endswith(".safetensors"):
            return found
        stem = name.removesuffix(".safetensors")
        older = found.with_name(f"{'pytorch_model' if stem == 'model' else stem}.bin")
        return older if older.is_file() else found

    def load(self, part: Part, dtype: torch.dtype | None = None) -> Any:
        """Return a part's network as `Weights` does."""
        import torch

        path = self.file(part, part.files[-1])
        if path.suffix != ".bin":
            return super().load(part, dtype)
        try:
            make, state = self._making(part), self.tensors(part)
            check_network(make, sum(value.numel() for value in state.values()))
            network = make()
            network.load_state_dict({name: value.float() for name, value in state.items()})
        except UserError:
            raise
        except Exception as error:  # each library has its own for files that do not fit
            raise self._misfit(part, error) from error
        return network.to(dtype or torch.float32).eval().requires_grad_(False)

    def tensors(self, part: Part) -> dict[str, torch.Tensor]:
        """Return a part's tensors by their names today."""
        path = self.file(part, part.files[-1])
        if path.suffix != ".bin":
            from safetensors.torch import load_file

            return load_file(path)
        found, _ = read_inert(path, f"get it again with: {self.command}")
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise UserError(f"{path} holds no tensors by name; get it again with: {self.command}.")
        return {
            ATTENTION.sub(lambda m: f"{m[1]}{OLDER[m[2]]}.", name): plain_tensor(
                value, f"{path}: {name}"
            )
            for name, value in found.items()
            if not name.endswith(COUNTED)
        }
