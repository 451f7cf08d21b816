"""The parser of the command line, one function for each command; no command's own code is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from def_hub import __version__
from def_hub.cli import compare, evaluate, library
from def_hub.cli.options import add_call_options, add_model_options, whole_number

CHECKPOINTS = ("adm", "vgg19", "ttsr")
CONFIGS = ("def-base", "def-mini", "base")
OPERATORS = ("bicubic", "box", "matlab")


class _Parser(argparse.ArgumentParser):
    """Complains in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands. What it parses has `run`, the command's function as `module:function`."""
    parser = _Parser(prog="def-hub", description="Reference-based ×4 super-resolution.")
    parser.add_argument("--version", action="version", version=f"def-hub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)
    for add in (_upscale, _inspect, _rank, _library, _evaluate, _compare, _train):
        add(commands)
    for add in (_convert, _assemble, _card, _publish, _app):
        add(commands)
    return parser


def _upscale(commands: Any) -> None:
    command = commands.add_parser("upscale", help="enlarge a picture, or every picture of a folder")
    add = command.add_argument
    add("image", type=Path, metavar="LR", help="picture, or folder of pictures")
    add(
        "--ref",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="sharp photograph of the same kind of thing; repeat for several",
    )
    add("--library", type=Path, metavar="PHOTOS.def", help="choose references from this library, beside --ref")
    add("--max-references", type=whole_number(1), default=3, metavar="N", help="from the library (default: 3)")
    add("-o", "--output", required=True, metavar="OUT", help="file or folder to write; a new folder may end in /")
    add("--width", type=whole_number(1), metavar="PX", help="of the result, instead of --scale; the height follows")
    add("--height", type=whole_number(1), metavar="PX", help="likewise; with --width, both count")
    add("--bits", type=int, choices=(8, 16), default=8, help="of each colour; 16 for .png only (default: 8)")
    add(
        "--color-space",
        choices=("srgb", "input"),
        default="srgb",
        help="of the result, with its profile; input: each picture's own, where that has red, green and blue "
        "(default: srgb, in which everything is computed)",
    )
    add("--recursive", action="store_true", help="also the pictures of the folders in the folder")
    add("--skip-existing", action="store_true", help="leave alone what is there already, and do the rest")
    add(
        "--save-intermediates",
        type=Path,
        metavar="DIR",
        help="also write what explains the result: confidence, matches, report …",
    )
    add(
        "--max-memory",
        type=float,
        metavar="GB",
        help="refuse pictures that would need more, before anything is computed (default: what this machine has)",
    )
    add("--fit", action="store_true", help="shrink pictures that would need more memory first, as little as needed")
    add("--crop", metavar="WxH+LEFT+TOP", help="enlarge only this part of each picture, in its pixels")
    add_model_options(command)
    add_call_options(command)
    command.set_defaults(run="def_hub.cli.upscale:upscale")


def _inspect(commands: Any) -> None:
    command = commands.add_parser("inspect", help="say what degraded a picture: JPEG, noise, blur, earlier enlargement")
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="pictures")
    command.add_argument("--json", action="store_true", help="one line of JSON for each file")
    command.set_defaults(run="def_hub.cli.inspect:inspect")


def _rank(commands: Any) -> None:
    command = commands.add_parser("rank", help="order candidate references by the share of a picture they can serve")
    command.add_argument("image", type=Path, metavar="LR", help="the small picture")
    command.add_argument(
        "candidates",
        type=Path,
        nargs="+",
        metavar="CANDIDATE",
        help="sharp photographs of any size, or folders of them",
    )
    command.add_argument("--model", metavar="MODEL", help="folder or Hub name (default: the embedded model)")
    command.add_argument(
        "--device", metavar="DEVICE", help="cpu, cuda, mps … (default: cuda if there is one); with --model only"
    )
    command.set_defaults(run="def_hub.cli.rank:rank")


def _library(commands: Any) -> None:
    command = commands.add_parser("library", help="build and keep a library of photos, to choose references from")
    actions = command.add_subparsers(required=True, metavar="action", parser_class=_Parser)
    library.add_actions(actions)


def _evaluate(commands: Any) -> None:
    command = commands.add_parser("evaluate", help="methods on data sets, by every protocol")
    evaluate.add_arguments(command.add_argument)
    add_model_options(command)
    # there, --degradation makes the LR pictures, and the results have the truth's size
    add_call_options(command, without=("degradation", "scale"))
    command.set_defaults(run="def_hub.cli.evaluate:evaluate")


def _compare(commands: Any) -> None:
    command = commands.add_parser("compare", help="whether one evaluation is better than another, and how sure that is")
    compare.add_arguments(command.add_argument)
    command.set_defaults(run="def_hub.cli.compare:compare")


def _train(commands: Any) -> None:
    command = commands.add_parser("train", help="train one part from a run file")
    add = command.add_argument
    add("config", type=Path, metavar="CONFIG.toml")
    add("--max-minutes", type=float, metavar="M", help="stop, with a checkpoint, after this time")
    add("--output", metavar="DIR", help="instead of the run file's")
    add(
        "--processes",
        type=whole_number(),
        metavar="N",
        help="fail unless this many processes run (see the README, several processes)",
    )
    start = command.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", default=True, help="continue from a checkpoint (default)")
    start.add_argument("--fresh", dest="resume", action="store_false", help="start from nothing")
    command.set_defaults(run="def_hub.cli.train:train")


def _convert(commands: Any) -> None:
    command = commands.add_parser("convert", help="a checkpoint of another project into parts of ours")
    add = command.add_argument
    add("kind", choices=CHECKPOINTS, help="OpenAI's guided-diffusion U-Net, torchvision's or timm's VGG19, TTSR")
    add("checkpoint", type=Path, metavar="FILE", help="safetensors, or a pickle of tensors alone")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    add("--image-size", type=whole_number(), default=256, help="adm: side of its training images (default: 256)")
    add("--head-channels", type=whole_number(), default=64, help="adm: width of an attention head (default: 64)")
    add("--heads", type=whole_number(), help="adm: number of heads, where that was fixed instead")
    add("--new-attention-order", action="store_true", help="adm: as the flag of that name")
    add("--schedule", choices=("linear", "cosine"), default="linear", help="adm: of the noise (default: linear)")
    add("--residual-scale", type=float, default=1.0, help="ttsr: its option res_scale (default: 1)")
    command.set_defaults(run="def_hub.cli.build:convert")


def _assemble(commands: Any) -> None:
    command = commands.add_parser("assemble", help="parts, from folders and the Hub, into one pipeline folder")
    add = command.add_argument
    add("--config", choices=CONFIGS, required=True, help="kind of Ref-SR network; base is TTSR's")
    add("--unet", required=True, metavar="NAME", help="folder or Hub name of a UNet2DModel with its scheduler")
    add(
        "--extractor", metavar="NAME", help="safetensors, folder or Hub name of a feature extractor (see convert vgg19)"
    )
    add("--refsr", metavar="NAME", help="folder or Hub name of a Ref-SR network (default: an untrained one)")
    add("--refsr-detail", metavar="NAME", help="the same, for the preset detail")
    add("--operator", choices=OPERATORS, default="bicubic", help="what made the small images (default: bicubic)")
    add(
        "--window",
        type=whole_number(),
        metavar="PX",
        help="side of the prior's windows (default: what it was trained on)",
    )
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the weights (default: float32)",
    )
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    command.set_defaults(run="def_hub.cli.build:assemble")


def _card(commands: Any) -> None:
    command = commands.add_parser("card", help="fill in a model card's figures from what was measured")
    add = command.add_argument
    add("card", type=Path, metavar="CARD.md", help="text with places for results and training")
    add(
        "--made-by",
        type=Path,
        metavar="DIR",
        help="folder with evaluation/ and training logs (default: made-by/ beside it)",
    )
    add("--check", action="store_true", help="write nothing; status 1 where the figures are not up to date")
    command.set_defaults(run="def_hub.cli.publish:card")


def _publish(commands: Any) -> None:
    command = commands.add_parser("publish", help="check a model folder, show what will change, and put it on the Hub")
    add = command.add_argument
    add("folder", type=Path, metavar="FOLDER", help="a pipeline as save_pretrained or assemble write it")
    add("name", metavar="NAME", help="on the Hub, like user/model")
    add("--card", type=Path, metavar="FILE", help="the model card (default: FOLDER's README.md, else the repository's)")
    add("--license", default="unknown", metavar="ID", help="for a card that is written because there is none")
    add("--base-model", metavar="NAME", help="likewise: what the weights were fine-tuned from")
    add("--private", action="store_true", help="a new repository is private; refuse a public one")
    add("--create-pr", action="store_true", help="open a pull request instead of committing")
    add("--revision", metavar="BRANCH", help="branch to commit to, made if it is not there (default: main)")
    add("--space", action="store_true", help="also publish a Space of the same name that runs the model")
    add("--message", metavar="TEXT", help="of the commit")
    add("--dry-run", action="store_true", help="check and show, upload nothing")
    command.set_defaults(run="def_hub.cli.publish:publish")


def _app(commands: Any) -> None:
    command = commands.add_parser("app", help="start the browser interface")
    command.add_argument("--model", metavar="MODEL", help="folder or Hub name (default: the embedded model)")
    command.add_argument(
        "--library", metavar="PHOTOS.def", help="offer visitors references from this library, see def-hub library"
    )
    command.set_defaults(run="def_hub.cli.app:app")
