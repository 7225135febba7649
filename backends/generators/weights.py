"""Weights of published diffusion models: found, checked, and loaded part by part.

They lie as diffusers lays them out, a folder for each network. Parts are loaded one by one into
classes that are named here: a pipeline class in a folder would run that folder's code. Only
safetensors are read, since the older ``.bin`` and ``.ckpt`` are pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.files import (
    HUB_ID,
    MISFITS_TOLD,
    check_config,
    check_network,
    hash_of_files,
    numbers_in,
    refuse_random,
)
from explorer.files import guard, read_object, reason
from explorer.types import UserError, resolve

if TYPE_CHECKING:
    import torch

NETWORK = ("config.json", "diffusion_pytorch_model.safetensors")
INDEX = ".index.json"  # what names the files of weights in several
TRANSFORMER = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Part:
    """One folder of a published model.

    ``cls``: the class that reads it, as in the dict literals. ``files``: what must be there.
    ``expects``: entries of its configuration that make it the architecture that is meant.
    ``hub``: the repository it comes from, "" for the model's own. ``shards``: in how many files
    its weights are published, with an index that names them; a single file stands for them.
    """

    folder: str
    cls: str
    files: tuple[str, ...] = NETWORK
    expects: Mapping[str, Any] = field(default_factory=dict)
    hub: str = ""
    shards: int = 0

    def published(self) -> tuple[str, ...]:
        """Return what is downloaded."""
        if not self.shards:
            return self.files
        *others, whole = self.files
        stem = whole.removesuffix(".safetensors")
        parts = (f"{stem}-{i + 1:05}-of-{self.shards:05}" for i in range(self.shards))
        return (*others, f"{whole}{INDEX}", *(f"{part}.safetensors" for part in parts))

    def in_half(self) -> Part:
        """Return the same part with weights in half precision, where that is what to download."""
        files = (name.replace(".safetensors", ".fp16.safetensors") for name in self.files)
        return replace(self, files=tuple(files))


def pipeline_parts(**unet: Any) -> tuple[Part, ...]:
    """Return UNet (of this configuration), autoencoder and scheduler."""
    return (
        Part("unet", "diffusers:UNet2DConditionModel", expects={"in_channels": 4, **unet}),
        Part("vae", "diffusers:AutoencoderKL", expects={"latent_channels": 4}),
        Part("scheduler", "", ("scheduler_config.json",)),
    )


def text_parts(number: str = "", cls: str = "CLIPTextModel") -> tuple[Part, ...]:
    """Return a text encoder and its tokenizer, which give the context of an empty prompt."""
    words = ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
    return (
        Part(f"text_encoder{number}", f"transformers:{cls}", TRANSFORMER),
        Part(f"tokenizer{number}", "", words),
    )


def path_and_options(
    source: str | Path | None, known: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Return path or hub id and options of ``PATH?name=value&name=value``; "" for no path.

    ``known``: the options there are.
    """
    path, mark, tail = str(source or "").partition("?")
    found: dict[str, str] = {}
    for word in tail.split("&") if mark else ():
        name, equals, value = word.partition("=")
        if name not in known or not (equals and value) or name in found:
            raise UserError(
                f"--generator ...={source}: after ? are {', '.join(known)}, each once and as "
                f"name=PATH; found {word!r}."
            )
        found[name] = value
    return path, found


class Weights:
    """The folders of one model.

    Parameters
    ----------
    name
        Of the generator, as on the command line.
    hub, size
        Where the model was published, and the size of all that is needed.
    parts
        What it consists of.
    usual
        The folder that is looked into unless ``source`` is given.
    source
        Another folder, or a hub id, from which the files are then downloaded (and kept by the
        hub's own cache).
    """

    def __init__(
        self,
        name: str,
        hub: str,
        size: str,
        parts: Sequence[Part],
        usual: Path,
        source: str | Path | None = None,
    ) -> None:
        self.name, self.hub, self.size, self.parts, self.usual = name, hub, size, parts, usual
        self.source = str(source or "")
        self._roots = self._find(source)
        self.folder = self._roots[hub]
        for part in parts:
            self._check(part)

    @property
    def command(self) -> str:
        """What a person types to get all files."""
        return " && ".join(
            f"hf download {hub} {' '.join(files)} --local-dir {self.usual}"
            for hub, files in self._wanted().items()
        )

    @cached_property
    def fingerprint(self) -> str:
        """Names the exact files; reading them takes seconds, so it is made when asked for."""
        return hash_of_files(
            *(
                path
                for part in self.parts
                for name in part.files
                for path in in_full(self.file(part, name))
            )
        )

    def path(self, part: Part) -> Path:
        """Return the folder of a part."""
        return self._roots[part.hub or self.hub] / part.folder

    def file(self, part: Part, name: str) -> Path:
        """Return a file of a part.

        Weights in full and half precision stand for each other, and for both an index of several.
        """
        usual = self.path(part) / name
        stem, _, end = usual.name.partition(".")
        other = {"safetensors": "fp16.safetensors", "fp16.safetensors": "safetensors"}.get(end)
        also = usual.with_name(f"{stem}.{other}")
        index = usual.with_name(f"{usual.name}{INDEX}")
        there = [one for one in (usual, also, index) if one.is_file() and (other or one == usual)]
        return there[0] if there else usual

    def config(self, part: Part) -> dict[str, Any]:
        """Return the configuration of a part; one that is no JSON object raises `UserError`."""
        again = f"get it again with: {self.command}"
        return read_object(self.path(part) / part.files[0], again)

    def load(self, part: Part, dtype: torch.dtype | None = None) -> Any:
        """Return a part's network in eval mode and without gradients, on the CPU.

        ``dtype``: of its numbers, None for float32.

        A weight that is missing would be a random number, so it raises `UserError`, as does
        whatever the library says of files that do not fit.
        """
        import torch

        dtype, path = dtype or torch.float32, self.file(part, part.files[-1])
        of_transformers = part.cls.startswith("transformers:")
        given = (
            MISFITS_TOLD
            if of_transformers
            else {"torch_dtype": dtype, "output_loading_info": True}
        )
        if ".fp16." in path.name:
            given = {**given, "variant": "fp16"}
        cls = resolve(part.cls)
        try:
            check_network(self._making(part), sum(map(numbers_in, weights_of(path))))
            network, found = cls.from_pretrained(
                self.path(part),
                local_files_only=True,
                use_safetensors=True,
                **given,
            )
            refuse_random(found)
        except Exception as error:  # each library has its own for files that do not fit
            raise self._misfit(part, error) from error
        if of_transformers:
            network.to(dtype)  # the argument for it has another name in older versions
        return network.eval().requires_grad_(False)

    def _making(self, part: Part) -> Callable[[], Any]:
        """Return what makes a part's network by its configuration, which is checked first."""
        cls, folder = resolve(part.cls), self.path(part)
        check_config(self.config(part))
        if part.cls.startswith("transformers:"):
            return partial(cls, cls.config_class.from_pretrained(folder))
        return partial(cls.from_config, cls.load_config(folder))

    def _misfit(self, part: Part, error: Exception) -> UserError:
        """Return what to say where a library cannot load a part's files."""
        return UserError(
            f"The weights in {self.path(part)} cannot be loaded for {self.name} "
            f"({type(error).__name__}: {reason(error)}); it was made "
            f"for {part.hub or self.hub}, get its files again with: {self.command}."
        )

    def words(self, parts: Mapping[str, Part], number: str = "") -> tuple[Any, Any]:
        """Return a tokenizer and its text encoder, on the CPU."""
        from transformers import CLIPTokenizer

        folder = self.path(parts[f"tokenizer{number}"])
        again = f"get it again with: {self.command}"
        with guard(folder, f"the tokenizer of {self.name}", again):
            words = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return words, self.load(parts[f"text_encoder{number}"])

    def empty_prompt(
        self, parts: Mapping[str, Part], number: str = "", text: tuple[Any, Any] | None = None
    ) -> Any:
        """Return what a text encoder says of an empty prompt; it is not kept.

        ``text``: tokenizer and encoder, if they are there already.
        """
        path = self.path(parts[f"text_encoder{number}"])
        again = f"get its files and those of its tokenizer again with: {self.command}"
        words, encoder = text or self.words(parts, number)
        with guard(path, f"the text encoder of {self.name}", again):
            return said(words, encoder, "")

    # ------------------------------------------------------------------------------- finding files

    def _wanted(self) -> dict[str, list[str]]:
        """Return repository -> its files, the model's own first."""
        wanted: dict[str, list[str]] = {self.hub: []}
        for part in self.parts:
            files = [str(Path(part.folder) / name) for name in part.published()]
            wanted.setdefault(part.hub or self.hub, []).extend(files)
        return wanted

    def _find(self, source: str | Path | None) -> dict[str, Path]:
        """Return the folder of each repository; downloads only for a hub id."""
        folder = Path(source).expanduser() if source else self.usual
        if not source or folder.is_dir():
            return dict.fromkeys(self._wanted(), folder)
        if not HUB_ID.fullmatch(str(source)):
            raise UserError(
                f"--generator {self.name}={source} is neither a folder nor a hub id such as "
                f"{self.hub}."
            )
        return {
            hub: self._download(str(source) if hub == self.hub else hub, files)
            for hub, files in self._wanted().items()
        }

    def _download(self, repository: str, files: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        try:
            return Path(snapshot_download(repository, allow_patterns=list(files)))
        except (HfHubHTTPError, OSError, ValueError) as error:
            cause, status = error, getattr(getattr(error, "response", None), "status_code", 0)
        if isinstance(cause, GatedRepoError) or status == 403:
            said = "is gated; accept its licence on its page, log in with: hf auth login"
        elif isinstance(cause, RepositoryNotFoundError) or status in (401, 404):
            said = (
                f"was not found; check the spelling (the usual one is {self.hub}), or log in "
                "with: hf auth login if it is private"
            )
        else:
            said = f"could not be downloaded ({reason(cause)}); check the connection"
        raise UserError(
            f"{repository} ({self.size} in all) {said}, or bring its files here by another way "
            f"({self.command}) and name their folder with --generator {self.name}=PATH."
        ) from cause

    def _check(self, part: Part) -> None:
        """Refuse files that are absent, cut short, pickled, or of another architecture."""
        for name in part.files:
            path = self.file(part, name)
            if path.is_file():
                continue
            pickled = [p.name for end in (".bin", ".ckpt") for p in path.parent.glob(f"*{end}")]
            if pickled and path.suffix == ".safetensors":
                raise UserError(
                    f"{path.parent} has only {pickled[0]}, a pickle, which can run code when it "
                    f"is read and is refused; get safetensors with: {self.command}."
                )
            raise UserError(
                f"{self.name} needs {part.folder}/{name} of {part.hub or self.hub} ({self.size} "
                f"in all), and {self._roots[part.hub or self.hub]} has none; get it with: "
                f"{self.command}; or name a folder or hub id with --generator "
                f"{self.name}=PATH_OR_ID."
            )
        path = self.file(part, part.files[-1])
        if path.suffix == ".safetensors" or path.name.endswith(INDEX):
            try:
                for one in weights_of(path):
                    numbers_in(one)
            except ValueError as error:
                raise UserError(
                    f"{path.parent}: {error}; get it again with: {self.command}."
                ) from error
        config = self.config(part) if part.expects else {}
        for key, expected in part.expects.items():
            found = config.get(key)
            if found != expected:
                raise UserError(
                    f"{path.parent} is of another architecture than {self.name} needs: its {key} "
                    f"is {found}, expected {expected} as in {part.hub or self.hub}; name other "
                    f"weights with --generator {self.name}=PATH_OR_ID."
                )


def weights_of(path: Path) -> list[Path]:
    """Return the files of numbers that a file is, or names as an index."""
    return [one for one in in_full(path) if not one.name.endswith(INDEX)]


def in_full(path: Path) -> list[Path]:
    """Return a file, and those that it names if it is an index; a wrong one is a `ValueError`."""
    if not path.name.endswith(INDEX):
        return [path]
    try:
        placed = read_object(path)["weight_map"]
        names = sorted(set(placed.values()))
        if any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise ValueError("it names files elsewhere")
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path.name} is no index of weights ({reason(error)})") from error
    return [path, *(path.with_name(name) for name in names)]


def taesd(folder: Path) -> Any:
    """Return a tiny autoencoder of Stable Diffusion's latents from a folder, as `AutoencoderTiny`.

    Reads diffusers' layout, and that of its author (``taesd_encoder.safetensors`` and
    ``taesd_decoder.safetensors``; madebyollin/taesd): its decoder counts the clamp in front.
    """
    import torch
    from diffusers import AutoencoderTiny
    from safetensors.torch import load_file

    try:
        if (folder / "config.json").is_file():
            network, found = AutoencoderTiny.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                torch_dtype=torch.float32,
            )
            refuse_random(found)
        else:
            network, state = AutoencoderTiny(), {}
            for half, shift in (("encoder", 0), ("decoder", 1)):
                for key, value in load_file(folder / f"taesd_{half}.safetensors").items():
                    index, _, rest = key.partition(".")
                    state[f"{half}.layers.{int(index) - shift}.{rest}"] = value.float()
            network.load_state_dict(state)
    except Exception as error:  # each library has its own for files that do not fit
        raise UserError(
            f"The tiny autoencoder in {folder} cannot be loaded ({type(error).__name__}: "
            f"{reason(error)}); get it again with: hf download madebyollin/taesd config.json "
            f"diffusion_pytorch_model.safetensors --local-dir {folder} (10 MB), or remove that "
            "folder for coarser previews."
        ) from error
    return network.eval().requires_grad_(False)


def said(words: Any, encoder: Any, prompt: str) -> Any:
    """Return what a text encoder says of a prompt, padded and cut to 77 tokens."""
    import torch

    shape = {"padding": "max_length", "max_length": 77, "truncation": True}
    ids = words(prompt, **shape, return_tensors="pt").input_ids
    with torch.inference_mode():
        return encoder(ids.to(encoder.device), output_hidden_states=True)
