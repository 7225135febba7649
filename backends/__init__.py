"""What a new paper could replace. A new entry is one file and one line in a dict below.

Values are ``"module:Class"``, resolved by `explorer.types.resolve` when they are first used, so
that opening the app does not wait for libraries nobody has asked for yet.
"""

DATASETS: dict[str, str] = {
    "simulated": "backends.datasets.simulated:Simulated",
    "folder": "backends.datasets.folder:Folder",
    "miyawaki2008": "backends.datasets.miyawaki:Miyawaki2008",
    "miyawaki2008-nilearn": "backends.datasets.miyawaki_runs:Miyawaki2008Runs",
    "miyawaki2008-s2": "backends.datasets.miyawaki_series:Miyawaki2008S2",
    "nsd": "backends.datasets.nsd:NSD",
    "god": "backends.datasets.god:GOD",
    "god-mindvis": "backends.datasets.god_mindvis:GODMindVis",
    "mindeye1": "backends.datasets.mindeye1:MindEye1",
    "mindeye2": "backends.datasets.mindeye2:MindEye2",
    "algonauts2023": "backends.datasets.algonauts:Algonauts2023",
    "deeprecon": "backends.datasets.deeprecon:Deeprecon",
    "mosaic": "backends.datasets.mosaic:Mosaic",
    "laion-fmri": "backends.datasets.laion_fmri:LaionFMRI",
    "bold5000": "backends.datasets.bold5000:BOLD5000",
    "things-fmri": "backends.datasets.things:ThingsFMRI",
    "cneuromod-things": "backends.datasets.cneuromod:CNeuroModThings",
}

EMBEDDERS: dict[str, str] = {
    "pocket-clip": "backends.embedders.pocket:PocketClip",
    "pixels": "backends.embedders.pixels:Pixels",
    "resnet50": "backends.embedders.published:ResNet50",
    "vit-b16": "backends.embedders.published:ViTB16",
    "ViT-B-32": "backends.embedders.clip:ViTB32",
    "ViT-L-14": "backends.embedders.clip:ViTL14",
    "ViT-H-14": "backends.embedders.clip:ViTH14",
    "ViT-bigG-14": "backends.embedders.clip:ViTBigG14",
    "stable-diffusion": "backends.embedders.published:StableDiffusionText",
    "sd-vae": "backends.embedders.published:StableDiffusionLatents",
    "sd-vae-224": "backends.embedders.published:LowLevelLatents",
    "gnet": "backends.embedders.pixels:GNetPixels",
    "laion-clip": "backends.embedders.sidecar:LaionCLIP",
    "laion-dinov2": "backends.embedders.sidecar:LaionDINOv2",
    "laion-pecore": "backends.embedders.sidecar:LaionPEcore",
    "laion-siglip2": "backends.embedders.sidecar:LaionSigLIP2",
}

MAPPERS: dict[str, str] = {
    "ridge": "backends.mappers.ridge:Ridge",
    "mlp": "backends.mappers.mlp:MLP",
    "contrastive": "backends.mappers.contrastive:Contrastive",
    "flow": "backends.mappers.flow:Flow",
    "masked": "backends.mappers.masked:Masked",
    "mixer": "backends.mappers.mixer:Mixer",
    "joined": "backends.mappers.joined:Joined",
    "published": "backends.mappers.published:Published",
}

GENERATORS: dict[str, str] = {
    "pocket-diffusion": "backends.generators.pocket:PocketDiffusion",
    "pixels": "backends.generators.pixels:Pixels",
    "retrieval": "backends.generators.retrieval:Retrieval",
    "sd15-context": "backends.generators.sd15_context:StableContext",
    "sd15-label": "backends.generators.sd15_label:StableLabel",
    "unclip": "backends.generators.unclip:StableUnCLIP",
    "sdxl-unclip": "backends.generators.sdxl_unclip:SDXLUnCLIP",
    "kandinsky": "backends.generators.kandinsky:Kandinsky",
    "ip-adapter": "backends.generators.ip_adapter:IPAdapter",
    "ip-adapter-xl": "backends.generators.ip_adapter:IPAdapterXL",
    "versatile": "backends.generators.versatile:Versatile",
    "cascade": "backends.generators.cascade:Cascade",
    "flux": "backends.generators.flow_matching:Flux",
    "mind-vis": "backends.generators.mindvis:MindVis",
    "neurolens": "backends.generators.mindvis:NeuroLens",
    "published": "backends.generators.published:Published",
}

ENCODERS: dict[str, str] = {
    "encoding": "backends.encoders.voxelwise:Encoding",
    "gnet": "backends.encoders.gnet:GNet",
}
