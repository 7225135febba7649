"""MinD-Vis' and NeuroLens' fine-tuned encoder as a mapper: from betas to their context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backends.commands.foreign_checkpoints import MAE, Found
from backends.generators.mindvis import MindVis, NeuroLens
from explorer.files import plain_tensor
from explorer.types import Card, EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    import torch

    from backends.mappers.masked import Masked


def space_of(state: Mapping[str, torch.Tensor]) -> EmbeddingSpace:
    """Return the context that a file's generator is told, by its width."""
    spaces = {cls.accepts[0].shape[1]: cls.accepts[0] for cls in (MindVis, NeuroLens)}
    bias = state.get("cond_stage_model.dim_mapper.bias")
    width = 0 if bias is None else bias.numel()
    if width not in spaces:
        raise UserError(
            f"The file makes a context of {width} values a token, expected "
            f"{' or '.join(map(str, spaces))} (MinD-Vis, NeuroLens); leave out --dataset to "
            "convert its encoder alone."
        )
    return spaces[width]


def mapper_of(
    state: Mapping[str, torch.Tensor], trials: Trials, space: EmbeddingSpace, heads: int
) -> Masked:
    """Return the encoder and what follows it, from betas to the context.

    Parameters
    ----------
    state
        ``model_state_dict`` of their ``finetuned.pth``.
    trials
        Of the participant it was trained on, whose training betas have the mean and the SD by
        which they are standardised.
    space
        The context that their generator is told.
    heads
        Attention heads, which no tensor tells.
    """
    import torch

    from backends.mappers.masked import Masked
    from backends.mappers.parts.fine_tuned import statistics, to_context, wrapped
    from backends.mappers.parts.patches import published_encoder

    encoder, then = published_encoder(state, heads, MAE), to_context(state)
    sizes, name = encoder.architecture, trials.subject.name
    shape, reads = (len(then.mix), len(then.bias)), (then.mix.shape[1], then.weight.shape[1])
    if reads != (sizes["positions"], sizes["width"]) or shape != space.shape:
        raise UserError(
            f"The file makes {sizes['positions']} tokens of {sizes['width']} values, and a "
            f"context {shape} of {reads[0]} tokens of {reads[1]}, expected {space.name} "
            f"{space.shape}; copy it again."
        )
    order = wrapped(trials, sizes["positions"], sizes["patch"])
    mapper = Masked(
        (space,),
        {name: trials.subject.voxels.n_voxels},
        {name: sizes["positions"]},
        **sizes,
        tuning=0,
        latents=len(then.mix),
        condition_dropout=0.0,
        published=True,
    )
    mapper.encoder.load_state_dict(encoder.state_dict())
    own, (head,) = mapper.of(name), mapper.heads
    centre, spread = mapper.statistics(name)
    with torch.no_grad():
        own.order.copy_(torch.from_numpy(order))
        own.mix.zero_()[1:] = then.mix.T
        mapper.null.copy_(then.offset[:, None].expand_as(mapper.null))
        head.sequence.weight.copy_(torch.eye(len(then.mix)))
        head.sequence.bias.zero_()
        head.values.weight.copy_(then.weight)
        head.values.bias.copy_(then.bias)
        mean, sd = statistics(trials, order)
        centre.fill_(mean)
        spread.fill_(sd)
    return mapper.eval()


def fine_tuned(
    found: Found,
    studied: Sequence[Trials],
    heads: int,
    title: str,
    command: str,
    origin: Callable[[Found, Sequence[str]], dict[str, Any]],
) -> tuple[Any, Card, tuple[str, ...]]:
    """Return a mapper from betas to the context that the file's own generator is told.

    Parameters
    ----------
    found
        What `open_checkpoint` returned of a ``finetuned.pth``.
    studied
        The trials of the participant it was trained on.
    heads
        Attention heads of its encoder.
    title, command
        For the card.
    origin
        What says on the card where the weights are from, and what was left out.
    """
    if len(studied) != 1:
        raise UserError(
            f"{found.path} was trained on one participant; name that one by --subject, found "
            f"{len(studied)}."
        )
    (trials,) = studied
    state = {
        name: plain_tensor(z, f"{found.path}: {name!r}")
        for name, z in found.state.items()
        if name.startswith("cond_stage_model.")
    }
    space = space_of(state)
    mapper = mapper_of(state, trials, space, heads)
    taken = (MAE, "cond_stage_model.channel_mapper.", "cond_stage_model.dim_mapper.")
    left_out = tuple(
        f"{part.name.rstrip('.')} ({part.tensors} tensor(s)): {part.what}"
        for part in found.parts
        if not part.name.startswith(taken)
    )
    subject = trials.subject
    card = Card(
        kind="mapper",
        name=title or space.model,
        cls="masked",
        dataset=subject.dataset,
        command=command,
        licence="of the published weights",
        subjects=(subject.name,),
        voxels={subject.name: (subject.voxels.n_voxels, subject.voxels.hash)},
        targets=(space,),
        normalisation="one mean and SD of all training betas, as the published training; its "
        "evaluation left test trials as they were",
        settings=origin(found, left_out),
    )
    return mapper, card, left_out
