"""`def-hub publish` and `def-hub card`: a model folder onto the Hub, and the text beside it."""

import argparse

from def_hub.cli.console import say, warn
from def_hub.hub import publish as hub
from def_hub.hub.card import render
from def_hub.hub.space import space_files
from def_hub.pipeline import DEFPipeline
from def_hub.writing import write_text


def publish(options: argparse.Namespace) -> int:
    """Check, show, commit; then, with --space, the same for the Space."""
    hub.check_name(options.name)
    space = space_files(options.name, revision=options.revision) if options.space else None
    where = {"private": options.private or None, "create_pr": options.create_pr}
    plans = [
        hub.prepare(
            options.folder,
            options.name,
            load=DEFPipeline.from_pretrained,
            card=options.card,
            license=options.license,
            base_model=options.base_model,
            revision=options.revision,
            **where,
        )
    ]
    if space is not None:
        plans.append(hub.plan(options.name, space, kind="space", **where))
    for plan in plans:
        say(str(plan))
    if "license: unknown" in hub.text_of(plans[0].files["README.md"]).partition("\n---")[0]:
        warn("the model card names no licence, so nobody may use the weights by that alone: --license ID names one")
    if options.dry_run:
        return 0
    for plan in plans:
        say(hub.carry_out(plan, message=options.message))
    return 0


def card(options: argparse.Namespace) -> int:
    """Write the figures into a card, or, with --check, say whether they are up to date."""
    if not options.card.is_file():
        raise FileNotFoundError(f"{options.card}: no such file")
    card = options.card.resolve()  # a link stays one
    text = card.read_text(encoding="utf-8")
    filled = render(text, options.made_by or card.parent / "made-by")
    if options.check:
        if filled != text:
            warn(f"{options.card}: not up to date; run `def-hub card` without --check")
        return int(filled != text)
    write_text(card, filled)
    say(f"{options.card}: {'as it was' if filled == text else 'figures filled in'}")
    return 0
