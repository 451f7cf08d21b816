"""`def-hub convert` and `def-hub assemble`: foreign checkpoints and single parts into folders that can be loaded."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from def_hub.assemble import assemble as put_together
from def_hub.cli.console import say
from def_hub.convert import convert_adm, convert_ttsr, convert_vgg19, read_checkpoint
from def_hub.hub.card import parts_of
from def_hub.hub.new_card import written_card
from def_hub.writing import replacing_files


def convert(options: argparse.Namespace) -> int:
    """One foreign checkpoint into a folder of its own."""
    folder: Path = options.output
    _check_new(folder)
    state = read_checkpoint(options.checkpoint)
    with replacing_files(folder) as temporary:
        _convert(options, state, temporary)
    say(f"{options.checkpoint} -> {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    return 0


def _convert(options: argparse.Namespace, state: dict[str, torch.Tensor], folder: Path) -> None:
    if options.kind == "adm":
        unet, scheduler = convert_adm(
            state,
            image_size=options.image_size,
            head_channels=options.head_channels,
            heads=options.heads,
            new_attention_order=options.new_attention_order,
            schedule=options.schedule,
        )
        unet.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
    elif options.kind == "vgg19":
        weights = {k: v.contiguous() for k, v in convert_vgg19(state).state_dict().items()}
        save_file(weights, folder / "extractor.safetensors", metadata={"extractor": "vgg19_imagenet"})
    else:
        convert_ttsr(state, residual_scale=options.residual_scale).save_pretrained(folder / "refsr")


def assemble(options: argparse.Namespace) -> int:
    """Parts into one pipeline folder, with a card that names them."""
    folder: Path = options.output
    _check_new(folder)
    pipe = put_together(
        options.config,
        unet=options.unet,
        refsr=options.refsr,
        extractor=options.extractor,
        refsr_detail=options.refsr_detail,
        operator=options.operator,
        window=options.window,
        dtype=getattr(torch, options.dtype),
    )
    parts = (options.unet, options.extractor, options.refsr, options.refsr_detail)
    names = [name for name in parts if name and not Path(name).exists()]
    with replacing_files(folder) as temporary:
        pipe.save_pretrained(str(temporary))
        sizes = parts_of(temporary)
        card = written_card(folder.resolve().name, temporary, base_model=list(dict.fromkeys(names)))
        (temporary / "README.md").write_text(card, encoding="utf-8")
    untrained = "" if options.refsr else "; refsr is untrained and returns the enhanced image"
    say(f"{folder}: {', '.join(f'{name} {count / 1e6:.1f} M' for name, count in sizes.items())} parameters{untrained}")
    return 0


def _check_new(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists already; choose a new folder")
