"""`def-hub evaluate`: a model on data sets, as a table."""

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from def_hub.cli.console import say
from def_hub.cli.model import commit, load
from def_hub.cli.options import call_options
from def_hub.evaluation import benchmark
from def_hub.evaluation.metrics import Protocol
from def_hub.report import conditions, versions


def evaluate(options: argparse.Namespace) -> int:
    """Measure the model on data sets and print the table; bicubic comes first."""
    if (options.save_images or options.resume) and options.output is None:
        raise ValueError("--save-images and --resume need --output")
    protocol = Protocol(options.channel, options.border)
    datasets = [benchmark.load_dataset(folder) for folder in options.dataset]
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise ValueError("two data sets have the same folder name, their rows could not be told apart")
    pipe = load(options)
    pipe.set_progress_bar_config(disable=True)
    call = call_options(options)
    settings = {
        "model": str(options.model or "embedded default"),
        "weights": benchmark.fingerprint(pipe.parts(options.preset)),
        "call": call,
        "conditions": conditions(pipe, options.preset, call["precision"]),
        "seed": options.seed,
        "protocol": str(protocol),
        "versions": versions(),
        "commit": commit(),
    }
    journal = benchmark.Journal(options.output, settings, options.resume) if options.output else None
    restore = benchmark.restorer(pipe, options.seed, **call)
    methods: list[tuple[str, benchmark.Restore, benchmark.References]]
    methods = [("bicubic", benchmark.bicubic, "none")]
    methods += [("def", restore, mode) for mode in dict.fromkeys(options.references)]

    rows: list[benchmark.Row] = []
    total = len(methods) * sum(len(dataset.items) for dataset in datasets)
    done = journal.done if journal else []
    with tqdm(total=total, initial=len(done), unit="image", disable=None) as bar:

        def on_row(row: benchmark.Row) -> None:
            bar.update()
            if journal is not None:
                journal.add(row)

        for dataset in datasets:
            for method, function, mode in methods:
                bar.set_description(f"{dataset.name}, {method}, {mode}")
                folder = Path(options.output or "") / "images" / dataset.name / f"{method}-{mode}"
                rows += benchmark.evaluate(
                    function,
                    dataset,
                    mode,
                    method=method,
                    protocol=protocol,
                    done=done,
                    save_to=folder if options.save_images else None,
                    on_row=on_row,
                )
    summaries = benchmark.summarise(rows)
    table = benchmark.markdown(summaries, protocol)
    if journal is not None:
        journal.finish(summaries, table)
    say(table)
    return 0
