"""`def-hub evaluate`: methods on data sets, or somebody's results against the truth, as a table."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from def_hub.evaluation.benchmark import Measures
    from def_hub.evaluation.datasets import Dataset
    from def_hub.evaluation.rows import Row

REFERENCES = ("first", "all", "none", "unrelated", "1", "2", "3", "4", "5")
LAYOUTS = ("plain", "CUFED5", "WR-SR", "Sun80", "Manga109", "RealSR")
PROTOCOLS = ("ttsr", "masa", "c2", "mmagic")
DEFAULT_REFERENCES = ("first", "none", "unrelated")


def add_arguments(add: Callable[..., Any]) -> None:
    """The options of the command, without those that name the model and its call."""
    add(
        "dataset",
        nargs="*",
        metavar="DATASET",
        help="folder, recognised by its layout (see --layout), or on the Hub: hub:user/name[:split]",
    )
    add("--layout", choices=LAYOUTS, metavar="NAME", help=f"what the folders are: one of {', '.join(LAYOUTS)}")
    add(
        "--pair",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("LR", "HR"),
        help="two folders of any name; LR pictures are taken as they are",
    )
    add("--score", type=Path, metavar="RESULTS", help="compare a folder of finished pictures instead, with --truth")
    add("--truth", type=Path, metavar="HR", help="what --score is compared with")
    add(
        "--method",
        action="append",
        default=[],
        metavar="NAME",
        help="bicubic, def, def:PRESET, def:PRESET,SETTING=VALUE …, or a published network with its weights, like "
        "rlfn=FILE; repeat for several (default: bicubic and def)",
    )
    add(
        "--references",
        type=_mode,
        nargs="+",
        default=[],
        metavar="[METHOD=]MODE",
        help=f"one or more of {', '.join(REFERENCES)}; for all methods, or for one, which then has only those that are "
        f"named for it (default: {' '.join(DEFAULT_REFERENCES)}; first with --protocol)",
    )
    add(
        "--every",
        type=_every,
        nargs="+",
        default=[],
        metavar="[METHOD=]N",
        help="measure every N-th picture only, of all methods or of one, as in --every 2 rrdb=6 (default: 1)",
    )
    add("--protocol", choices=PROTOCOLS, help="what a published method compares; the options below override it")
    add("--channel", choices=("y", "rgb"), help="what is compared (default: y)")
    add("--border", type=_border, metavar="PX", help="pixels cropped first, or 'scale' for 4 (default: 0)")
    add("--unrounded", action="store_true", help="do not round results to 8 bits first")
    add("--kernel", choices=("pillow", "matlab"), default="pillow", help="what makes LR pictures (default: pillow)")
    add(
        "--degradation",
        dest="lr_degradation",
        nargs="+",
        default=[],
        metavar="NAME",
        help="make LR pictures with these degradations instead, such as clean, jpeg70, noise5, blur3+jpeg60, phone; "
        "what a method is told is a setting of its own, as in def:balanced,degradation=auto",
    )
    add("--lpips", metavar="FILE", help="also measure LPIPS v0.1 (squeeze): its weights, or a Hub name user/name/file")
    add("--output", type=Path, metavar="DIR", help="write rows.csv, summary.json, summary.csv and table.md here")
    add("--save-images", action="store_true", help="keep the results, too (needs --output)")
    add("--report", action="store_true", help="also write report.html, a page to compare by eye (needs --output)")
    add("--resume", action="store_true", help="go on with what --output holds already")


def evaluate(options: argparse.Namespace) -> int:
    """Measure and print a table. The status is 1 where something asked for could not be measured."""
    if (options.save_images or options.resume or options.report) and options.output is None:
        raise ValueError("--save-images, --resume and --report need --output")
    if (options.score is None) != (options.truth is None):
        raise ValueError("--score and --truth need each other")
    if options.score is not None:
        if options.dataset or options.pair:
            raise ValueError("--score compares finished pictures: leave out the data sets")
        return _score(options)
    return _run(options)


def _score(options: argparse.Namespace) -> int:
    from def_hub.evaluation import benchmark, tables
    from def_hub.evaluation.rows import summarise

    measures = _measures(options)
    rows, problems = benchmark.score(options.score, options.truth, measures)
    settings = {"results": str(options.score), "truth": str(options.truth), **_described(measures)}
    table = tables.markdown(summarise(rows), measures.protocol, "made by others") + "\n" + _made_with(settings)
    if options.output is not None:
        benchmark.Journal(options.output, settings).finish(rows, problems, table)
    return _tell(table, problems)


def _run(options: argparse.Namespace) -> int:
    from def_hub.cli.methods import by_method, methods_of
    from def_hub.evaluation import benchmark, report
    from def_hub.sharing import Processes

    processes = Processes()  # first: it gives each process a graphics card of its own, where there are several
    datasets = _datasets(options)
    measures = _measures(options)
    methods, described = methods_of(options)
    modes, every = by_method(options.references, methods), by_method(options.every, methods)
    named = modes.pop("", [])
    usual = named or (["first"] if options.protocol else list(DEFAULT_REFERENCES))
    tasks, notes = benchmark.plan(methods, datasets, usual, modes)
    step = {name: numbers[-1] for name, numbers in every.items()}
    tasks = [task for task in tasks if task.index % step.get(task.method.name, step.get("", 1)) == 0]
    settings = {
        **described,
        "seed": options.seed,
        **_described(measures),
        "low_resolution": _low_resolution(datasets),
        "every": step.pop("", 1),
        "every_of": step,
        "references_of": {d.name: benchmark.reference_files(d) for d in datasets if d.layout == "Manga109"},
    }
    journal = benchmark.Journal(options.output, settings, options.resume, processes) if options.output else None
    save_to = options.output / "images" if options.save_images or options.report else None
    own, unreadable = _measure(processes, tasks, measures, journal, save_to)
    rows = {row.key: row for row in processes.gather(own)}
    problems = list(dict.fromkeys(f"{d.name}: {problem}" for d in datasets for problem in d.problems))
    problems += processes.gather(unreadable)
    status = 0
    if processes.first:
        ordered = [rows[task.key] for task in tasks if task.key in rows]
        if not named:  # nobody asked for what this data set lacks
            _note(notes)
        else:
            problems = notes + problems
        table = _table(ordered, datasets, measures, settings)
        if journal is not None:
            journal.finish(ordered, problems, table)
        if options.report:
            report.write(options.output)
        status = _tell(table, problems)
    processes.end()
    return status


def _table(rows: list["Row"], datasets: list["Dataset"], measures: "Measures", settings: dict[str, Any]) -> str:
    """All that is printed below each other: what was measured, by degradation too, and what others published."""
    from def_hub.evaluation import published, tables
    from def_hub.evaluation.rows import summarise

    summaries = summarise(rows)
    table = tables.markdown(summaries, measures.protocol, settings["low_resolution"]) + "\n" + _made_with(settings)
    measured = {s.dataset: s.images for s in sorted(summaries, key=lambda s: s.images)}  # the most of any method
    comparable = {d.name: measured[d.name] for d in datasets if d.name in measured}
    further = (tables.by_degradation(summaries, datasets), published.markdown(comparable))
    return "\n\n".join([table, *filter(None, further)])


def _measure(
    processes: Any, tasks: list[Any], measures: "Measures", journal: Any, save_to: Path | None
) -> tuple[list["Row"], list[str]]:
    """This process's share of the rows, and what could not be measured. Shows the time that is left."""
    from tqdm.auto import tqdm

    from def_hub.evaluation import benchmark

    own = processes.share(tasks)
    done = journal.done if journal is not None else []
    known = {row.key for row in done}
    problems: list[str] = []
    left = sum(task.key not in known for task in own)
    with tqdm(total=left, unit="image", disable=None if processes.first else True) as bar:

        def on_row(row: "Row") -> None:
            bar.set_description(f"{row.dataset}, {row.method}, {row.references}")
            bar.update()
            if journal is not None:
                journal.add(row)

        rows = benchmark.run(own, measures, done=done, save_to=save_to, on_row=on_row, on_problem=problems.append)
    return rows, problems


def _datasets(options: argparse.Namespace) -> list["Dataset"]:
    from def_hub.evaluation.datasets import load_dataset, load_pair
    from def_hub.hub.datasets import folder_of

    datasets = [load_dataset(folder_of(name), options.layout) for name in options.dataset]
    datasets += [load_pair(lr, hr) for lr, hr in options.pair]
    if not datasets:
        raise ValueError("nothing to measure: name a data set's folder, --pair LR HR, or --score RESULTS --truth HR")
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise ValueError("two data sets have the same folder name, their rows could not be told apart")
    if options.kernel != "pillow" and options.lr_degradation:
        raise ValueError("--degradation brings its own kernel: leave out --kernel")
    names = options.lr_degradation or ["clean" if options.kernel == "pillow" else options.kernel]
    return list(dict.fromkeys(dataset.degraded(name) for dataset in datasets for name in names))


def _low_resolution(datasets: list["Dataset"]) -> str:
    """What made the LR pictures, in words."""
    made = list(dict.fromkeys(d.called for d in datasets if d.layout != "RealSR"))
    words = {"clean": "Pillow bicubic", "matlab": "MATLAB bicubic"}
    given = [d.name for d in datasets if d.layout == "RealSR"]
    said = ", ".join(words.get(name, f"degradation {name}") for name in made) or words["clean"]
    return said + (f" (as given: {', '.join(given)})" if given else "")


def _measures(options: argparse.Namespace) -> "Measures":
    from dataclasses import replace

    from def_hub.evaluation.benchmark import Measures
    from def_hub.evaluation.metrics import PROTOCOLS, Protocol
    from def_hub.evaluation.perceptual import LPIPS

    protocol = PROTOCOLS[options.protocol] if options.protocol else Protocol()
    protocol = replace(
        protocol,
        channel=options.channel or protocol.channel,
        border=protocol.border if options.border is None else options.border,
        rounded=not options.unrounded,
    )
    lpips = LPIPS.from_file(_file(options.lpips)) if options.lpips else None
    return Measures(protocol, lpips)


def _file(name: str) -> Path:
    """A file here, or `user/name/file` on the Hub."""
    from def_hub.hub.fetch import locate_file

    user, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if Path(name).exists() or not file or not user:
        return Path(name)
    return locate_file(f"{user}/{repository}", file)


def _described(measures: "Measures") -> dict[str, Any]:
    from def_hub.cli.model import commit
    from def_hub.report import versions

    return {
        "protocol": str(measures.protocol),
        "lpips": "v0.1 (squeeze)" if measures.lpips is not None else "unavailable: no --lpips",
        "versions": versions(),
        "commit": commit(),
    }


def _made_with(settings: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return f"Commit {settings['commit'] or 'unknown'}; {versions}."


def _note(notes: list[str]) -> None:
    for note in notes:
        print(f"def-hub: {note}", file=sys.stderr)


def _tell(table: str, problems: list[str]) -> int:
    print(table)
    for problem in problems:
        print(f"def-hub: not measured: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _mode(text: str) -> tuple[str, str]:
    """`def:fast=none` → ("def:fast", "none"); `none`, for all methods, → ("", "none")."""
    method, _, mode = text.rpartition("=")
    if mode not in REFERENCES:
        raise argparse.ArgumentTypeError(f"invalid choice: {mode!r} (choose from {', '.join(REFERENCES)})")
    return method, mode


def _every(text: str) -> tuple[str, int]:
    """`rrdb=3` → ("rrdb", 3); `3`, for all methods, → ("", 3). Names of methods may hold "=" themselves."""
    method, _, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, or METHOD=N, got {text!r}")
    return method, int(number)


def _border(text: str) -> int:
    if text == "scale":
        return 4
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of pixels or 'scale', got {text!r}")
    return int(text)
