"""The command ``import-checkpoint``: what a published checkpoint holds, and its conversion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backends.commands import options
from backends.commands.foreign_checkpoints import LAYOUTS, MAE, Found, open_checkpoint
from backends.commands.joined_checkpoints import another, joined
from explorer.files import plain_tensor
from explorer.types import Card, EmbeddingSpace, Subject, UserError

if TYPE_CHECKING:
    import torch

    from backends.mappers.mixer import Mixer

HEADS = 16  # attention heads of MinD-Vis' encoder as published (zjc062/mind-vis, code/config.py)
LINEARS = re.compile(r"((?:ridge|voxelenc)\.linears\.)(\d+)\.")  # of each subject
LOW_LEVEL = "sd-vae-224/latents"  # what MindEye2's low-level branch gives
FINE_TUNED = "mind-vis-finetuned"
LATENTS = 77  # as many as MinD-Vis makes of its encoder's tokens


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth, .pt, .ckpt or .safetensors file.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    converting: Annotated[
        bool, typer.Option("--convert", help="Write what a mapper needs as a checkpoint of ours.")
    ] = False,
    dataset: Annotated[
        str, typer.Option(help="NAME=PATH of the data it was trained on, to convert it.")
    ] = "",
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Whose layers it holds, in the order of its training (repeated)."),
    ] = None,
    only: Annotated[str, typer.Option(help="Convert the layer of this one of them alone.")] = "",
    space: Annotated[str, typer.Option(help="MODEL/LAYER, what its tokens are.")] = "",
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="FILE=MODEL/LAYER: another encoder of the same subjects, to make one decoder of "
            "all (repeated), as NeuralDiffuser's c, z and g."
        ),
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema", help="Read the average of the weights, where it has one.")
    ] = False,
    sampler: Annotated[
        str,
        typer.Option(
            help="How its prior is sampled: published (new noise in each step) or ddim (none)."
        ),
    ] = "published",
    heads: Annotated[
        int,
        typer.Option(
            help=f"Attention heads of MinD-Vis' encoder, where the file does not say: published "
            f"are {HEADS}.",
            show_default=False,
        ),
    ] = 0,
    title: options.Name = "",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Say what a checkpoint of MindEye2, NeuralDiffuser or MinD-Vis holds, or convert it."""
    from backends.commands.fine_tuned import fine_tuned
    from backends.embedders.choice import available_spaces

    if only and not (converting and dataset):
        raise UserError(
            f"--only {only} says whose layer is converted, so it needs --convert and --dataset "
            "NAME=PATH with every --subject of its training; add them, or leave --only out."
        )
    bench, studied, parts = None, [], []
    about = {"heads": heads, "title": title, "command": options.command_line()}
    for path, target in [(file, space), *map(another, also or ())]:
        found = open_checkpoint(path, ema)
        for line in found.told(tensors):
            print(line)
        if not converting:
            continue
        if dataset:
            if bench is None:
                name, bench = options.open_bench(dataset, checkpoints)
            found, whose = alone(found, subject or (), only) if only else (found, subject or ())
            studied = [bench.catalogue.trials(name, person) for person in whose]
        if studied and found.kind == FINE_TUNED:
            known = {"heads": _heads(found, heads), "origin": _origin}
            parts.append(fine_tuned(found, studied, **{**about, **known}))
            continue
        people = [trials.subject for trials in studied]
        known = {name: known for name, (_, known) in available_spaces().items()}
        parts.append(convert(found, people, target, sampler=sampler, known=known, **about))
    if not converting:
        return
    mapper, card, left_out = parts[0] if len(parts) == 1 else joined(parts)
    folder = place(checkpoints, card)
    mapper.save_pretrained(folder, card)
    print("\nNot converted:" if left_out else "")
    for line in left_out:
        print(f"  {line}")
    print(f"\n{use(folder, card)}")


def alone(found: Found, everybody: Sequence[str], only: str) -> tuple[Found, list[str]]:
    """Return a file as if it held the layers of one participant, and that one's name.

    Parameters
    ----------
    found
        A checkpoint of several participants.
    everybody
        All of them, in the order of its training.
    only
        The one whose layers stay.
    """
    layers = sorted({int(m[2]) for name in found.state if (m := LINEARS.match(name))})
    if layers != list(range(len(everybody))) or only not in everybody:
        raise UserError(
            f"{found.path} has {len(layers)} subjects' layers; name all of them in the order of "
            f"its training, one --subject each, and one of them by --only; found "
            f"{', '.join(everybody) or 'none'} and --only {only}."
        )
    number, state = everybody.index(only), {}
    for name, tensor in found.state.items():
        match = LINEARS.match(name)
        if match is None:
            state[name] = tensor
        elif int(match[2]) == number:
            state[f"{match[1]}0.{name[match.end() :]}"] = tensor
    return replace(found, state=state), [only]


def convert(
    found: Found,
    subjects: Sequence[Subject],
    space: str,
    *,
    sampler: str = "published",
    heads: int = 0,
    title: str,
    command: str,
    known: Mapping[str, EmbeddingSpace],
) -> tuple[Any, Card, tuple[str, ...]]:
    """Return a mapper of ours with a file's weights, its card, and what found no place in it.

    Parameters
    ----------
    found
        What `open_checkpoint` returned.
    subjects
        MindEye2 and NeuralDiffuser: the participants in the order in which the file's layers were
        trained, all of one data set. MinD-Vis' encoder has none.
    space
        MindEye2 and NeuralDiffuser: ``model/layer`` of the tokens it was trained to.
    sampler
        MindEye2 and NeuralDiffuser: of the prior, see `backends.mappers.parts.prior`.
    heads
        MinD-Vis: attention heads, which no tensor tells; needed where the file's configuration
        does not, as that of ``finetuned.pth``.
    title, command
        For the card.
    known
        The spaces that can be made here, by name.
    """
    if not found.kind:
        raise UserError(
            f"{found.path} is none of the checkpoints that can be converted: "
            f"{'; '.join(layout.title for layout in LAYOUTS.values())}."
        )
    state = {
        name: plain_tensor(z, f"{found.path}: {name!r}")
        for name, z in found.state.items()
        if name not in found.unknown
    }
    left = {name: found.state[name] for name in found.unknown}  # the converters name these
    found = replace(found, state=state | left)
    if found.kind.startswith("mind-vis"):
        return _encoder(found, heads, title, command)
    if found.kind == "neuraldiffuser-z":
        return _latents(found, subjects, space, title, command, known)
    return _mixer(found, subjects, space, sampler, title, command, known)


def _latents(
    found: Found,
    subjects: Sequence[Subject],
    name: str,
    title: str,
    command: str,
    known: Mapping[str, EmbeddingSpace],
) -> tuple[Any, Card, tuple[str, ...]]:
    from backends.mappers.joined import LOW_LEVEL as CLS
    from backends.mappers.joined import Joined
    from backends.mappers.parts.voxel2sd import low_level

    if not subjects or found.missing:
        raise UserError(
            "Say whose layers the file holds, with --dataset NAME=PATH and one --subject a layer "
            f"in the order of its training; found {len(subjects)} subject(s), and of the file "
            f"missing are {', '.join(found.missing) or 'none'}."
        )
    voxels = {one.name: one.voxels.n_voxels for one in subjects}
    name = name or "sd-vae/latents"
    made, sizes, left_out = low_level(found.state, voxels, known.get(name, name))
    about = {"cls": CLS, "targets": 1, "architecture": sizes}
    mapper, origin = Joined.of(voxels, [(about, made)]), _origin(found, left_out)
    origin["published"]["scale"] = (
        "as the network gives them: the published scores were moved to the mean and SD of "
        "training latents by those of all test predictions, which one trial does not know"
    )
    card = _card(found, subjects, mapper, "joined", title, command, origin)
    return mapper, card, left_out


def _mixer(
    found: Found,
    subjects: Sequence[Subject],
    name: str,
    sampler: str,
    title: str,
    command: str,
    known: Mapping[str, EmbeddingSpace],
) -> tuple[Any, Card, tuple[str, ...]]:
    from backends.mappers.mixer import Mixer
    from backends.mappers.parts.upsampler import LAST

    model, _, layer = name.partition("/")
    if not subjects or not (model and layer):
        raise UserError(
            "Say whose layers the file holds and which tokens it gives, with --dataset "
            f"NAME=PATH, one --subject a layer in the order of its training, and --space "
            f"MODEL/LAYER; found {len(subjects)} subject(s) and the space {name!r}."
        )
    voxels = {one.name: one.voxels.n_voxels for one in subjects}
    space = known.get(name) or EmbeddingSpace(model, layer, _tokens(found.state))
    low = known.get(LOW_LEVEL) if LAST in found.state else None
    mapper, left_out = Mixer.from_published(found.state, voxels, space, low=low, sampler=sampler)
    origin = _origin(found, left_out)
    if mapper.architecture["prior"]:
        origin["published"]["prior"] = sampling(mapper)
    return mapper, _card(found, subjects, mapper, "mixer", title, command, origin), left_out


def _card(
    found: Found,
    subjects: Sequence[Subject],
    mapper: Any,
    cls: str,
    title: str,
    command: str,
    settings: Mapping[str, Any],
) -> Card:
    """Return the card of a mapper that knows these subjects."""
    return Card(
        kind="mapper",
        name=title or found.kind,
        cls=cls,
        dataset=subjects[0].dataset,
        command=command,
        licence="of the published weights",
        subjects=tuple(one.name for one in subjects),
        voxels={one.name: (one.voxels.n_voxels, one.voxels.hash) for one in subjects},
        targets=mapper.targets,
        normalisation="none here: the published training read standardised betas",
        settings=settings,
    )


def sampling(mapper: Mixer) -> str:
    """Return how a converted mapper's prior is sampled, for its card and records."""
    from backends.mappers.parts.prior import LEVELS

    noise = f"the noise of seed {mapper.start} for every trial"
    if mapper.sampler == "published":
        kind = "DDPM" if mapper.steps == LEVELS else "DDIM with eta 1"
        return f"as published: {kind} over {mapper.steps} of {LEVELS} levels, {noise}"
    return f"DDIM without noise in its steps: {mapper.steps} of {LEVELS} levels, {noise}"


def _tokens(state: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    """Return (T, D) of the tokens, by the layer norm before the projection and the layer to it."""
    from backends.mappers.parts.foreign import shape_of

    norm, linear = "backbone.clip_proj.0.weight", "backbone.backbone_linear.weight"
    if norm not in state or linear not in state:
        raise UserError(f"The file lacks {norm} or {linear}, which say how many tokens it gives.")
    (size,), (both, _) = shape_of(state, norm, 1), shape_of(state, linear, 2)
    return max(1, both // size), size


def _encoder(
    found: Found, heads: int, title: str, command: str
) -> tuple[Any, Card, tuple[str, ...]]:
    import torch

    from backends.mappers.masked import Masked
    from backends.mappers.parts.patches import published_encoder

    prefix = MAE if found.kind == "mind-vis-finetuned" else ""
    encoder = published_encoder(found.state, _heads(found, heads), prefix)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of what is not in the file, and learned later
        more = {"tuning": 0, "latents": LATENTS, "condition_dropout": 0.0}
        mapper = Masked((), {}, {}, **encoder.architecture, **more)
    mapper.encoder.load_state_dict(encoder.state_dict())
    left_out = tuple(
        f"{part.name.rstrip('.')} ({part.tensors} tensor(s)): {part.what}"
        for part in found.parts
        if not (part.name == MAE if prefix else part.name in LAYOUTS["mind-vis"].needed)
    )
    card = Card(
        kind="mapper",
        name=title or found.kind,
        cls="masked",
        dataset="",
        command=command,
        licence="of the published weights",
        normalisation="none here: the published training read standardised betas",
        settings=_origin(found, left_out),
    )
    return mapper.eval(), card, left_out


def _heads(found: Found, asked: int) -> int:
    """Return the encoder's attention heads, as the file says or a person."""
    told = found.config.get("num_heads", 0)
    if not isinstance(told, int) or told < 0 or asked < 0:
        raise UserError(
            f"Attention heads are a whole number from 1, found {told!r} in {found.path} and "
            f"{asked} by --heads; give the number of its configuration."
        )
    if not told and not asked:
        raise UserError(
            f"{found.path} does not say how many attention heads its encoder has, and no tensor "
            f"tells; add --heads {HEADS} if it is as MinD-Vis published it, or the number of its "
            "configuration."
        )
    if told and asked and told != asked:
        raise UserError(
            f"The configuration in {found.path} says {told} attention heads, asked for were "
            f"{asked}; leave out --heads."
        )
    return told or asked


def _origin(found: Found, left_out: Sequence[str]) -> dict[str, Any]:
    return {
        "published": {
            "layout": LAYOUTS[found.kind].title,
            "file": found.path.name,
            "unknown": list(found.unknown),
            "left out": list(left_out),
        }
    }


def place(checkpoints: Path, card: Card) -> Path:
    """Return the folder for a converted checkpoint: beside trained mappers, if it decodes."""
    if not card.subjects:
        return checkpoints / "imported" / card.name
    return checkpoints / "mappers" / card.dataset / "-".join([card.name, *card.subjects])


def use(folder: Path, card: Card) -> str:
    """Return the sentence about what can be done with a converted checkpoint."""
    if card.subjects:
        return f"{folder}: open its data set in the app, or measure it with evaluate."
    return (
        f"{folder}: an encoder that knows no subject yet; train with it by: python -m backends "
        f"train {card.cls} --set from_checkpoint={folder} --dataset NAME=PATH"
    )
