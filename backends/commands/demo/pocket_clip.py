"""The stage that trains pocket-clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from backends.commands.demo.build import Build, shifted
from backends.embedders.pocket import WordTokenizer, clip_model
from backends.generators.pocket import IMAGE
from backends.simulation.scenes import CATEGORIES
from backends.training.plan import batches


def train(build: Build) -> None:
    """Train pocket-clip: symmetric InfoNCE of pictures and captions (Radford et al. 2021).

    A batch's captions differ most in place, colour and light, which would leave little reason
    to see what kind of object it is. So each picture is also matched against the names of the
    categories, as in contrastive training on labels (Yang et al. 2022, arXiv 2204.03610).
    """
    sizes = build.sizes
    tokenizer = WordTokenizer.learn([scene.caption for scene in build.library])
    torch.manual_seed(sizes.clip.seed)
    model = clip_model(tokenizer.size).to(build.device)
    texts = tokenizer([scene.caption for scene in build.library])
    names_of = list(CATEGORIES)
    kinds = tokenizer(names_of)
    kind = torch.tensor([names_of.index(scene.category) for scene in build.library])

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = batches(len(build.library), sizes.clip_batch, step, sizes.clip.seed)
        pixels = build.batch(build.pictures, rows)
        # nudged by up to 3 pixels: edges must not fall on the same patch borders each epoch
        dx, dy = torch.randint(-3, 4, (2,), generator=generator).tolist()
        pixels = shifted(pixels, dx, dy)
        image = model.encode_image(pixels, normalize=True).float()
        both = torch.cat([texts[rows], kinds]).to(build.device)
        text = model.encode_text(both, normalize=True).float()
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        pairs, kinds_said = logits[:, : len(rows)], logits[:, len(rows) :]
        right = torch.arange(len(rows), device=build.device)
        caption = (F.cross_entropy(pairs, right) + F.cross_entropy(pairs.T, right)) / 2
        return caption + F.cross_entropy(kinds_said, kind[rows].to(build.device))

    seconds = build.fit("pocket-clip", model, loss, sizes.clip)
    with torch.inference_mode():
        image = torch.cat(
            [
                model.encode_image(part, normalize=True).float().cpu()
                for part in build.held_out_batches()
            ]
        )
        text = model.encode_text(
            tokenizer([scene.caption for scene in build.held_out]).to(build.device),
            normalize=True,
        )
    ranks = (image @ text.float().cpu().T).argsort(dim=1, descending=True)
    found = ranks == torch.arange(len(image))[:, None]
    metrics = {
        "image to caption, top 1": found[:, 0].float().mean().item(),
        "image to caption, top 5": found[:, :5].any(dim=1).float().mean().item(),
        "chance of top 1": 1 / len(image),
        "N": len(image),
    }
    architecture = {"vocabulary": list(tokenizer.vocabulary)}
    plan = {"architecture": architecture, "plan": repr(sizes.clip), "batch": sizes.clip_batch}
    build.write("pocket-clip", "embedder", model, seconds, plan, metrics, targets=(IMAGE,))
