"""`def-hub upscale | rank | evaluate | compare | train | convert | assemble | card | publish | app`.

Heavy imports live inside the commands, so that `--help` and a mistyped option answer at once. What a user did
wrong ends in one line on stderr and status 2; set `DEF_DEBUG=1` to see the traceback instead.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from def_hub import __version__
from def_hub.cli import compare as comparison
from def_hub.cli import evaluate as evaluation
from def_hub.cli.errors import complain, is_users

PRESETS = ("fast", "balanced", "detail")
MATCHING_IMAGES = ("enhanced", "bicubic", "joint")
CHECKPOINTS = ("adm", "vgg19", "ttsr")
CONFIGS = ("def-base", "def-mini", "base")
OPERATORS = ("bicubic", "box", "matlab")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit status: 0, 1 where some files of a folder failed, 2 for a wrong input."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("def-hub: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_users(error) or os.environ.get("DEF_DEBUG"):
            raise
        complain(error)
        return 2


def _upscale(options: argparse.Namespace) -> int:
    from def_hub.cli.upscale import upscale

    return upscale(options)


def _rank(options: argparse.Namespace) -> int:
    from def_hub.cli.rank import rank

    return rank(options)


def _train(options: argparse.Namespace) -> int:
    """Train the part that a run file names."""
    from def_hub import training

    folder = training.run(
        options.config,
        resume=options.resume,
        max_minutes=options.max_minutes,
        output=options.output,
        processes=options.processes,
    )
    print(f"weights in {folder}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from def_hub.cli.build import convert

    return convert(options)


def _assemble(options: argparse.Namespace) -> int:
    from def_hub.cli.build import assemble

    return assemble(options)


def _card(options: argparse.Namespace) -> int:
    from def_hub.cli.publish import card

    return card(options)


def _publish(options: argparse.Namespace) -> int:
    from def_hub.cli.publish import publish

    return publish(options)


def _app(options: argparse.Namespace) -> int:
    """Start the browser interface."""
    if find_spec("gradio") is None:
        raise ModuleNotFoundError("the browser interface needs gradio: pip install 'def-hub[app]'")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in app.py, before torch is imported
    from def_hub.space.serve import main as serve

    if options.model:
        os.environ["DEF_MODEL"] = options.model
    serve()
    return 0


class _Parser(argparse.ArgumentParser):
    """Complains in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="def-hub", description="Reference-based ×4 super-resolution.")
    parser.add_argument("--version", action="version", version=f"def-hub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)

    command = commands.add_parser("upscale", help="enlarge a picture, or every picture of a folder, four times")
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
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="file or folder to write")
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
    _add_model_options(add)
    command.set_defaults(command=_upscale)

    command = commands.add_parser("rank", help="order candidate references by the share of a picture they can serve")
    add = command.add_argument
    add("image", type=Path, metavar="LR", help="the small picture")
    add("candidates", type=Path, nargs="+", metavar="CANDIDATE", help="sharp photographs of any size")
    add("--model", metavar="MODEL", help="folder or Hub name (default: the embedded model)")
    add("--device", metavar="DEVICE", help="cpu, cuda, mps … (default: cuda if there is one); with --model only")
    command.set_defaults(command=_rank)

    command = commands.add_parser("evaluate", help="methods on data sets, by every protocol")
    evaluation.add_arguments(command.add_argument)
    _add_model_options(command.add_argument)
    command.set_defaults(command=evaluation.evaluate)

    command = commands.add_parser("compare", help="whether one evaluation is better than another, and how sure that is")
    comparison.add_arguments(command.add_argument)
    command.set_defaults(command=comparison.compare)

    command = commands.add_parser("train", help="train one part from a run file")
    add = command.add_argument
    add("config", type=Path, metavar="CONFIG.toml")
    add("--max-minutes", type=float, metavar="M", help="stop, with a checkpoint, after this time")
    add("--output", metavar="DIR", help="instead of the run file's")
    add("--processes", type=_whole, metavar="N", help="fail unless so many run (see the README, several processes)")
    start = command.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", default=True, help="go on from a checkpoint (default)")
    start.add_argument("--fresh", dest="resume", action="store_false", help="start anew")
    command.set_defaults(command=_train)

    _add_build_commands(commands)
    _add_publish_commands(commands)

    command = commands.add_parser("app", help="start the browser interface")
    add = command.add_argument
    add("--model", metavar="MODEL", help="folder or Hub name (default: the embedded model)")
    command.set_defaults(command=_app)
    return parser


def _add_build_commands(commands: Any) -> None:
    command = commands.add_parser("convert", help="a foreign checkpoint into parts of ours")
    add = command.add_argument
    add("kind", choices=CHECKPOINTS, help="OpenAI's guided-diffusion U-Net, torchvision's or timm's VGG19, TTSR")
    add("checkpoint", type=Path, metavar="FILE", help="safetensors, or a pickle of tensors alone")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    add("--image-size", type=_whole, default=256, help="adm: side of its training images (default: 256)")
    add("--head-channels", type=_whole, default=64, help="adm: width of a head of attention (default: 64)")
    add("--heads", type=_whole, help="adm: number of heads, where that was fixed instead")
    add("--new-attention-order", action="store_true", help="adm: as the flag of that name")
    add("--schedule", choices=("linear", "cosine"), default="linear", help="adm: of the noise (default: linear)")
    add("--residual-scale", type=float, default=1.0, help="ttsr: its option res_scale (default: 1)")
    command.set_defaults(command=_convert)

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
    add("--window", type=_whole, metavar="PX", help="side of the prior's windows (default: what it was trained on)")
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the weights (default: float32)",
    )
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    command.set_defaults(command=_assemble)


def _add_publish_commands(commands: Any) -> None:
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
    command.set_defaults(command=_card)

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
    command.set_defaults(command=_publish)


def _add_model_options(add: Callable[..., Any]) -> None:
    add("--model", metavar="MODEL", help="folder or Hub name (default: the embedded model)")
    add("--device", metavar="DEVICE", help="cpu, cuda, mps … (default: cuda if there is one)")
    add("--preset", choices=PRESETS, default="balanced", help="default: balanced")
    add("--steps", type=_steps, metavar="N", help="diffusion steps, 1 to 1000 (default: the preset's)")
    add("--eta", type=_share, help="fresh noise per step, 0 to 1 (default: the preset's)")
    add("--seed", type=_whole, default=0, help="default: 0")
    add("--strength", type=_share, default=1.0, help="how much the references may add, 0 to 1 (default: 1)")
    add("--matching-image", choices=MATCHING_IMAGES, help="what is compared (default: the preset's)")
    add(
        "--no-consistency",
        dest="consistency",
        action="store_false",
        help="leave out the last projection onto what agrees with the input",
    )


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def _steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value
