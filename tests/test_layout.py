"""Which module may import which, as a table, compared with the actual imports in the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module may import modules on lower lines, and modules of its own folder.
LEVELS = (
    ("app",),
    ("def_hub.cli",),
    ("def_hub.space",),
    ("def_hub.service",),  # what page, endpoints and MCP share: no Gradio
    ("def_hub.training", "def_hub.assemble", "def_hub.estimate"),
    # published networks and LPIPS, whose weights convert reads
    ("def_hub.evaluation.baselines", "def_hub.evaluation.perceptual"),
    ("def_hub.convert",),
    ("def_hub.pipeline", "def_hub.data", "def_hub.visualization"),
    ("def_hub.scales",),
    ("def_hub.report", "def_hub.provenance", "def_hub.inputs", "def_hub.loading", "def_hub.crop", "def_hub.output"),
    ("def_hub.diffusion", "def_hub.reference"),
    ("def_hub.hub",),  # publishing gets the loading function as an argument; the card reads measured results
    ("def_hub.evaluation.benchmark", "def_hub.evaluation.report"),  # measures any method: no pipeline in it
    ("def_hub.evaluation.tables",),
    ("def_hub.evaluation.methods", "def_hub.evaluation.datasets"),
    ("def_hub.evaluation.compare", "def_hub.evaluation.published"),
    ("def_hub.evaluation.rows",),  # the card reads these files, too
    (
        "def_hub.observation",
        "def_hub.config",
        "def_hub.evaluation.metrics",
        "def_hub.training.losses",
    ),
    ("def_hub.images", "def_hub.tiling", "def_hub.precision", "def_hub.sharing"),
    ("def_hub.video",),
    ("def_hub.colour_space", "def_hub.decoding"),
    ("def_hub.colour", "def_hub.formats", "def_hub.metadata"),
    ("def_hub.png", "def_hub.sheet", "def_hub.stopping", "def_hub.waiting", "def_hub.writing"),
    ("def_hub.settings", "def_hub.naming"),  # what a call may be told, what results are called: no torch
)

# `images` and what it is made of
BORDER = (
    "def_hub.images",
    "def_hub.colour",
    "def_hub.colour_space",
    "def_hub.decoding",
    "def_hub.formats",
    "def_hub.metadata",
)

# Each heavy library has its doors.
DOORS = {
    "gradio": ("def_hub.space",),
    # the output names Pillow's class as the type of its pictures; data draws random crops and colours; degraded
    # files are what Pillow's filters and encoder make, and the coefficients of a JPEG come through its decoder
    "PIL": (
        *BORDER,
        "def_hub.sheet",
        "def_hub.visualization",
        "def_hub.output",
        "def_hub.data",
        "def_hub.service",
        "def_hub.observation",
    ),
    "pillow_heif": ("def_hub.formats",),
    "huggingface_hub": ("def_hub.hub",),
    "datasets": ("def_hub.hub.datasets",),
    "accelerate": ("def_hub.training", "def_hub.sharing"),
    "diffusers": (
        "def_hub.diffusion",
        "def_hub.loading",
        "def_hub.output",
        "def_hub.pipeline",
        "def_hub.training",
        "def_hub.reference.network",
        "def_hub.convert",
        "def_hub.assemble",
    ),
    "transformers": ("def_hub.reference.library.backbone",),
    "faiss": ("def_hub.reference.library.nearest",),
    "av": ("def_hub.video",),
    "tensorboard": ("def_hub.training",),
    "torchvision": ("def_hub.reference.restoring.deformable",),  # optional, on GPUs
    "matplotlib": (),
}

# The trainer does not know what it trains.
FORBIDDEN = {"def_hub.training.trainer": ("def_hub.pipeline", "def_hub.diffusion", "def_hub.reference")}


def modules() -> dict[str, Path]:
    """The source files of the project by module name."""
    found = {"app": ROOT / "app.py"}
    for path in sorted((ROOT / "def_hub").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """All modules that a file imports, except those imported for annotations only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found


def within(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def place(module: str) -> tuple[int, str] | None:
    """(level, entry) of the most specific entry for the module."""
    matches = [
        (len(entry), level, entry) for level, line in enumerate(LEVELS) for entry in line if within(module, entry)
    ]
    return max(matches)[1:] if matches else None


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ("def_hub", "def_hub.evaluation")])
def test_imports_go_down(module: str) -> None:
    own = place(module)
    assert own is not None, f"{module} has no place in the layout"
    for imported in imports(MODULES[module], MODULES):
        if not within(imported, "def_hub") or imported in ("def_hub", "def_hub.evaluation"):
            continue
        other = place(imported)
        assert other is not None, f"{imported} has no place in the layout"
        assert other[0] > own[0] or other[1] == own[1], f"{module} imports {imported}, which is not below it"
    for start, barred in FORBIDDEN.items():
        if within(module, start):
            crossed = {i for i in imports(MODULES[module], MODULES) for b in barred if within(i, b)}
            assert not crossed, f"{module} imports {crossed}"


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_are_imported_by_few_modules(library: str) -> None:
    users = {name for name, path in MODULES.items() if any(within(i, library) for i in imports(path, MODULES))}
    strangers = {user for user in users if not any(within(user, door) for door in DOORS[library])}
    assert not strangers, f"{library} is imported by {sorted(strangers)}"


def test_only_the_pipeline_imports_both_halves() -> None:
    both = set()
    for name, path in MODULES.items():
        found = imports(path, MODULES)
        if all(any(within(i, half) for i in found) for half in ("def_hub.diffusion", "def_hub.reference")):
            both.add(name)
    assert {name for name in both if not within(name, "def_hub.training")} == {"def_hub.pipeline"}


@pytest.mark.parametrize("statement", ["import def_hub", "import def_hub.cli; def_hub.cli._parser()"])
def test_importing_is_fast(statement: str) -> None:
    heavy = ("torch", "diffusers", "gradio", "PIL", "accelerate")
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_the_package_imports_neither_training_nor_evaluation_nor_gradio() -> None:
    code = "import sys, def_hub; def_hub.DEFPipeline; print([m for m in sys.modules if m.startswith(" + (
        "('gradio', 'def_hub.training', 'def_hub.evaluation', 'def_hub.cli', 'torchvision'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_public_names_resolve() -> None:
    import def_hub

    for name in def_hub.__all__:
        assert getattr(def_hub, name) is not None and name in dir(def_hub)
    with pytest.raises(AttributeError, match="no attribute 'DEFPipelines'"):
        def_hub.DEFPipelines  # noqa: B018
