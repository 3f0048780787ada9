"""Tables on the screen: the scores of runs, and runs compared on the same questions."""

import argparse
import contextlib
import datetime
import json
import math
import os
import string
from pathlib import Path

import numpy as np

from readers.results import read_predictions, read_scores
from scores import (
    GROUPS,
    ONE_PROTOCOL,
    PROTOCOLS,
    in_group,
    interval,
    intervals,
    protocol,
    protocols_of,
)
from utils import HERE, UserError

ORDER = ("OPEN", "CLOSED", "ALL")  # of the columns
# of the content of results.json, what a list of runs has
SHOWN = "model recipe changed split data epoch question_only image_only checkpoint".split()
NO_SCORES = {group: {"count": 0} for group in GROUPS}  # of a protocol that a run does not have
FILES = ("results.json", "results_all.json")  # of each protocol


def format_table(results, uncertain):
    """The table that test.py prints: open, closed, all in percent, with interval and ceiling.

    results: {protocol's name: `table(...)`}; uncertain: {protocol's name: `intervals(...)`}.
    """
    lines = [f"{'':18}    open  closed     all  ceiling   questions (open, closed)"]
    for name, scores in results.items():
        cells = [f"{scores[group]['score_percent']:>7.1f}" for group in ORDER]
        opened, closed, every = (scores[group]["count"] for group in ORDER)
        ceiling = scores["ALL"]["real_percent"]
        lines.append(f"{name:18} {' '.join(cells)} {ceiling:>8.1f}   {every} ({opened}, {closed})")
        spans = [uncertain[name][group] for group in ORDER]
        cells = [f"{span[0]:.0f}-{span[1]:.0f}" if span else "" for span in spans]
        lines.append(f"{'  95% interval':18} {' '.join(f'{cell:>7}' for cell in cells)}")
    return "\n".join(lines)


def mcnemar(only_a, only_b):
    """Exact two-sided McNemar test: the probability of so uneven a split by chance.

    The counts are of the questions that only one of two runs gets right.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def compare(ours, theirs):
    """Two runs on the same questions: {group: scores, difference, its interval, McNemar's test}.

    The difference is ours - theirs in percent points, its 95% interval by paired bootstrap over
    images. Raises UserError when the questions are not the same.
    """
    truths = [{p["qid"]: p["truth"] for p in run} for run in (ours, theirs)]
    if truths[0] != truths[1] or not len(ours) == len(theirs) == len(truths[0]):
        raise UserError(
            f"the two runs did not answer the same questions ({len(ours)} and {len(theirs)}): "
            "evaluate both on the same data"
        )
    other, out = {p["qid"]: p for p in theirs}, {}
    for group in GROUPS:
        if not (chosen := in_group(ours, group)):
            continue
        a = np.array([p["correct"] for p in chosen])
        b = np.array([other[p["qid"]]["correct"] for p in chosen])
        only_a, only_b = int((a > b).sum()), int((b > a).sum())
        low_high = interval(a - b, [p["image"] for p in chosen])
        out[group] = {
            "count": len(chosen),
            "scores": [round(100 * float(x.mean()), 1) for x in (a, b)],
            "difference": round(100 * float((a - b).mean()), 1),
            "interval": [round(value, 1) for value in low_high],
            "only first right": only_a,
            "only second right": only_b,
            "mcnemar p": round(mcnemar(only_a, only_b), 4),
        }
    return out


def compare_runs(paths):
    """The scores of runs, and the differences of the first from each other one.

    paths: results folders or predictions.json. Returns {"runs": [{"path", "scores"}],
    "differences": [{"first", "second", protocol's title: `compare(...)`}]}; docs/FORMATS.md
    section 5 has the scores. Raises UserError.
    """
    rows = [read_predictions(path) for path in paths]
    runs = [{"path": str(path), "scores": _scores(run)} for path, run in zip(paths, rows)]
    differences = []
    for path, other in zip(paths[1:], rows[1:]):
        row = {"first": str(paths[0]), "second": str(path)}
        try:
            for name, title in protocols_of(rows[0]).items():
                row[title] = compare(protocol(rows[0], name), protocol(other, name))
        except UserError as error:
            raise UserError(f"{paths[0]} and {path}: {error}") from None
        differences.append(row)
    return {"runs": runs, "differences": differences}


def _scores(rows):
    """{protocol's title: {group: count, score and interval}} of the rows of predictions.json."""
    found = {}
    for name, title in protocols_of(rows).items():
        spans, found[title] = intervals(protocol(rows, name)), {}
        for group in ORDER:
            correct = [row["correct"] for row in in_group(protocol(rows, name), group)]
            found[title][group] = {
                "count": len(correct),
                "score_percent": round(100 * float(np.mean(correct)), 1) if correct else 0.0,
                "interval95_percent": spans[group],
            }
    return found


def list_runs(folders):
    """The runs anywhere below some folders of results, the newest last, from their results.json.

    Returns {"runs": [{"path", "evaluated", those of SHOWN, "scores"}], "left out": {path: why}}.
    Its epochs count from 0, as in files. Raises UserError where no run can be shown.
    """
    found, left_out = [], {}
    for folder in folders:
        # a run may be a link to another disk, which rglob does not follow
        files = {*folder.rglob("predictions.json"), *folder.glob("*/predictions.json")}
        for path in sorted(file.parent for file in files):
            try:
                results = protocol_results(path, read_scores)
            except UserError as error:
                left_out[str(path)] = str(error)
                continue
            first = next(iter(results.values()))
            time = _time(first.get("evaluated"), path / FILES[0])
            run = {"path": str(path), "evaluated": time.isoformat(timespec="seconds")}
            run |= {key: first[key] for key in SHOWN} | {"split": split_of(first)}
            run["scores"] = {title: _entries(one) for title, one in results.items()}
            found.append((time, run))
    if not found:
        nothing = (
            f"no run below {', '.join(map(str, folders))}: ./train.sh and ./test.sh make one, or "
            "name another folder of results"
        )
        raise UserError(next(iter(left_out.values()), nothing))
    found.sort(key=lambda pair: pair[0])
    return {"runs": [run for _, run in found], "left out": left_out}


def protocol_results(folder, read):
    """{protocol's title: content of its file} of a results folder. read(path) -> content."""
    first = read(folder / FILES[0])
    one = first.get("protocol") in ONE_PROTOCOL.values()
    titles = (ONE_PROTOCOL if one else PROTOCOLS).values()
    return dict(zip(titles, [first, *(read(folder / name) for name in FILES[1 : len(titles)])]))


def _titles(runs):
    """The titles of all protocols by which some runs are scored, in order."""
    return list(dict.fromkeys(title for run in runs for title in run["scores"]))


def _time(text, file):
    """When a run was evaluated, datetime in local time: `text`, else the time of its file."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return datetime.datetime.fromisoformat(text).astimezone()
    return datetime.datetime.fromtimestamp(file.stat().st_mtime).astimezone()


def _entries(results):
    """{group: count, score and interval} of the content of a results.json."""
    spans = results["interval95_percent"]
    return {
        group: {
            "count": results[group]["count"],
            "score_percent": results[group]["score_percent"],
            "interval95_percent": spans[group],
        }
        for group in ORDER
    }


def split_of(results):
    """ "official" or "clean"; None where the set has no frame records, and so one split only.

    results: content of a results.json; one that does not say has two splits.
    """
    return results["split"] if results.get("frame_records", True) else None


def recipe_line(results):
    """ "paper", or "paper, changed: blocks 1" where settings differ from the recipe's."""
    changed = ", ".join(f"{name} {value}" for name, value in results["changed"].items())
    return results["recipe"] + (f", changed: {changed}" if changed else "")


def columns(rows, texts, above=None):
    """Rows of cells as lines of text with columns. texts: the columns that start at the left.

    above: {column: a title for it and those behind it}, the line above all.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    line = ""
    for index, title in (above or {}).items():
        line = f"{line:{sum(widths[:index]) + 2 * index}}{title}"
    lines = [line] if above else []
    for row in rows:
        sides = ("<" if index in texts else ">" for index in range(len(row)))
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _cell(entry, spread="{:.1f} to {:.1f}"):
    """ "75.0 (66.9 to 82.8)": a score and its interval; "-" for a group without questions."""
    if not entry["count"]:
        return "-"
    text, span = f"{entry['score_percent']:.1f}", entry["interval95_percent"]
    return f"{text} ({spread.format(*span)})" if spread and span else text


def format_list(found):
    """The lines for the content of `list_runs`: a run a line, long texts at its end."""
    titles = _titles(found["runs"])
    heads = len(titles) * ["open", "closed", "all, 95%"]
    rows = [["run", *heads, "epoch, from 1", "evaluated", "model", "split"]]
    rows[0] += ["data", "recipe"]
    for run in found["runs"]:
        row = [run["path"]]
        for title in titles:
            scores = run["scores"].get(title, NO_SCORES)
            row += [_cell(scores["OPEN"], ""), _cell(scores["CLOSED"], "")]
            row.append(_cell(scores["ALL"], "{:.0f}-{:.0f}"))
        row.append("-" if run["epoch"] is None else str(run["epoch"] + 1))
        row.append(run["evaluated"][:16].replace("T", " "))
        only = [key.replace("_", " ") for key in ("question_only", "image_only") if run[key]]
        row += [", ".join([run["model"], *only]), run["split"] or "-"]
        rows.append([*row, f"{run['data']['name']} {run['data']['digest'][:6]}", recipe_line(run)])
    above = {1 + 3 * index: title for index, title in enumerate(titles)}
    lines = columns(rows, {0, *range(len(heads) + 2, len(heads) + 7)}, above)
    return lines + [f"left out: {why}" for why in found["left out"].values()]


def format_runs(found):
    """The lines for the content of `compare_runs`: names A, B, ..., scores, differences."""
    letters = string.ascii_uppercase
    names = [letters[i % 26] * (1 + i // 26) for i in range(len(found["runs"]))]
    lines = [f"{name}: {run['path']}" for name, run in zip(names, found["runs"])]
    rows = [["", "", "questions", *(f"{group.lower()}, 95% interval" for group in ORDER)]]
    for title in _titles(found["runs"]):
        for name, run in zip(names, found["runs"]):
            scores = run["scores"].get(title, NO_SCORES)
            cells = [_cell(scores[group]) for group in ORDER]
            rows.append([title, name, str(scores["ALL"]["count"]), *cells])
    lines += ["", *columns(rows, range(2))]
    for name, pair in zip(names[1:], found["differences"]):
        lines += ["", *_format_difference(pair, names[0], name)]
    return lines


def _format_difference(pair, a, b):
    """The lines for one of the differences of `compare_runs`. a, b: names of the two runs."""
    rows = [["", "", "questions", a, b, f"{a} - {b}", "95% interval"]]
    rows[0] += [f"only {a} right", f"only {b} right", "McNemar p"]
    for title in [key for key in pair if key not in ("first", "second")]:
        for group, row in pair[title].items():
            (ours, theirs), (low, high) = row["scores"], row["interval"]
            cells = [title, group.lower(), str(row["count"]), f"{ours:.1f}", f"{theirs:.1f}"]
            cells += [f"{row['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}"]
            cells += [str(row["only first right"]), str(row["only second right"])]
            p = row["mcnemar p"]
            rows.append([*cells, f"{p:.4f}" if p else "< 0.0001"])
    return columns(rows, range(2))


def main(arguments=None):
    """The command line of scores.py: a table of runs, and runs compared."""
    parser = argparse.ArgumentParser(
        description="Scores of runs. Several runs are compared with the first one: paired "
        "bootstrap over images, and McNemar's test."
    )
    add = parser.add_argument
    text = "results folders or predictions.json, or folders of runs to list (default: results/)"
    add("runs", nargs="*", type=Path, metavar="RUN", help=text)
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    paths = args.runs or [Path(os.path.relpath(HERE / "results"))]
    if all(path.is_dir() and not (path / "predictions.json").exists() for path in paths):
        found, format_lines = list_runs(paths), format_list
    else:
        found, format_lines = compare_runs(paths), format_runs
    print(json.dumps(found, indent=1) if args.json else "\n".join(format_lines(found)))
