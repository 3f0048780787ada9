"""Count lines and columns, and check the rules of CONTRIBUTING.md.

    python -m tools.layout

Prints a table of all files of code and one line for each broken rule. The exit code is 1 where
a rule is broken, else 0.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("readers", "tools", "tests")  # with code, beside the root
ENDINGS = (".py", ".sh", ".jinja", ".toml", ".css", ".js")
LINES, COLUMNS = 400, 100  # the most of a Python file, and of any line
METHOD = (  # the files that a reader of the method goes through
    "train.py test.py engine.py features.py dataset_RAD.py text_rules.py base_model.py "
    "attention.py language_model.py classifier.py scores.py"
).split()
METHOD_LINES = 2200
# documents that code must not cite: they are not shipped
UNSHIPPED = re.compile(r"\b(DESIG[N]|ABLATION[S])\b")


def code_files(root=ROOT):
    """{name: lines} of all files of code below `root`, in the order of the table."""
    found = list(root.glob("*"))
    for folder in FOLDERS:
        found += (root / folder).rglob("*")
    paths = sorted(path for path in found if path.suffix in ENDINGS)
    paths.sort(key=lambda path: len(path.relative_to(root).parts))  # the root comes first
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8").splitlines() for path in paths
    }


def module_name(file):
    """The name under which a Python file is imported: "readers.images" of readers/images.py."""
    return file.removesuffix(".py").replace("/", ".")


def top_imports(lines, modules):
    """The names among `modules` that Python code imports when it is imported itself."""
    found, todo = set(), [ast.parse("\n".join(lines))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    return found & set(modules)


def find_circle(graph):
    """A list of modules that import each other, the first one again at its end; or []."""
    done = set()

    def visit(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if circle := visit(other, [*path, module]):
                return circle
        done.add(module)
        return []

    circles = (visit(module, []) for module in sorted(graph))
    return next(filter(None, circles), [])


def broken_rules(files):
    """One line for each broken rule. files: what `code_files` gives."""
    broken = []
    for name, lines in files.items():
        if name.endswith(".py") and len(lines) > LINES:
            broken.append(f"{name} has {len(lines)} lines, more than {LINES}")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS:
                broken.append(f"{name}:{number} has {len(line)} columns, more than {COLUMNS}")
            if cited := UNSHIPPED.search(line):
                broken.append(f"{name}:{number} cites {cited[0]}, which is not shipped")
    python = {module_name(name): lines for name, lines in files.items() if name.endswith(".py")}
    modules = {name: lines for name, lines in python.items() if not name.startswith("tests.")}
    graph = {name: top_imports(lines, modules) for name, lines in modules.items()}
    if circle := find_circle(graph):
        broken.append(f"imports go in a circle: {' > '.join(circle)}")
    if (total := sum(len(files.get(name, ())) for name in METHOD)) > METHOD_LINES:
        broken.append(f"the files of the method have {total} lines, more than {METHOD_LINES}")
    return broken


def format_table(files):
    """The table: each file, its lines and its longest line, then the sums."""
    rows = [(name, len(lines), max(map(len, lines), default=0)) for name, lines in files.items()]
    parts = {"the root": [row for row in rows if "/" not in row[0]]}
    parts |= {f"{one}/": [row for row in rows if row[0].startswith(f"{one}/")] for one in FOLDERS}
    parts |= {"all files": rows, "the method": [row for row in rows if row[0] in METHOD]}
    for title, some in parts.items():
        longest = max((row[2] for row in some), default=0)
        rows = [*rows, (title, sum(row[1] for row in some), longest)]
    lines = [f"{'file':36} {'lines':>6}  {'longest line':>12}"]
    lines += [f"{name:36} {count:>6}  {longest:>12}" for name, count, longest in rows]
    return "\n".join(lines)


def main(root=ROOT):
    files = code_files(root)
    print(format_table(files))
    broken = broken_rules(files)
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
