"""The charts of the report: inline SVG in the page's own colours."""

import io
import re

from utils import optional

# stand-ins in the drawings, replaced in the SVG by the colours of the page's style
INK, ONE, TWO = "#010203", "#010204", "#010205"
PARTS = ("training", "validation")
LOSSES, SCORES = ("loss", "val_loss"), ("train_score", "val_score")  # of log.jsonl, in that order
COLOURS = {INK: "currentColor", ONE: "var(--one)", TWO: "var(--two)"}


def chart(name, label, draw):
    """An inline SVG, markup. draw(axis) draws with INK, ONE and TWO.

    name: makes its ids unlike another chart's; label: its text for those who can't see it.
    """
    matplotlib, figures = optional("matplotlib"), optional("matplotlib.figure")
    markup = optional("markupsafe").Markup
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style = dict.fromkeys(inked, INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(4.7, 3.1), layout="constrained")
        axis = figure.subplots()
        axis.grid(color=INK, alpha=0.15)
        draw(axis)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"#01020[345]", lambda match: COLOURS[match[0]], svg)
    # no text of the data is in it
    return markup(svg.replace("<svg", markup('<svg role="img" aria-label="{}"').format(label), 1))


def training_charts(log, epoch):
    """The curves of loss and score by epoch, two SVGs, training and validation side by side.

    log: rows of log.jsonl, at least two, and epoch, the evaluated one or None, which both count
    epochs from 1. The space between the
    curves of the score is shaded where training is ahead.
    """
    from matplotlib.ticker import MaxNLocator

    def curves(axis, keys, ylabel):
        for key, title, colour, style in zip(keys, PARTS, (ONE, TWO), ("-o", "--s")):
            points = [(row["epoch"], row[key]) for row in log if key in row]
            if points:
                axis.plot(*zip(*points), style, color=colour, label=title, markersize=3)
        if both := [(row["epoch"], *map(row.get, keys)) for row in log if set(keys) <= set(row)]:
            at, training, validation = zip(*both)
            ahead = [a > b if keys == SCORES else a < b for _, a, b in both]
            axis.fill_between(
                at, training, validation, ahead, interpolate=True, color=TWO, alpha=0.15
            )
        if any(row["epoch"] == epoch for row in log):
            axis.axvline(epoch, color=INK, linewidth=1, linestyle=":", label="evaluated epoch")
        axis.set(xlabel="epoch, from 1", ylabel=ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.figure.legend(loc="outside upper center", ncols=3, fontsize=9)

    span = f"epochs {log[0]['epoch']} to {log[-1]['epoch']}: the numbers are in the table below"
    return [
        chart("loss", f"Loss, {span}", lambda axis: curves(axis, LOSSES, "loss")),
        chart(
            "score",
            f"Training and validation score, {span}",
            lambda axis: curves(axis, SCORES, "score (share right)"),
        ),
    ]


def calibration_chart(table):
    """The share of right answers in each bin of probability, against the diagonal, an SVG.

    table: `report_tables.calibration`'s.
    """

    def draw(axis):
        full = [row for row in table["bins"] if row["count"]]
        accuracy = [row["accuracy"] for row in full]
        centres = [(row["low"] + row["high"]) / 2 for row in full]
        axis.bar(centres, accuracy, 0.09, color=ONE, label="share that is right")
        axis.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfect calibration")
        axis.plot(
            [row["confidence"] for row in full],
            accuracy,
            "D",
            color=TWO,
            markersize=5,
            label="mean probability",
        )
        axis.set(
            xlabel="probability of the given answer",
            ylabel="share right",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        axis.figure.legend(loc="outside upper center", ncols=2, fontsize=9)

    label = "Share of right answers by probability: the numbers are in the table below"
    return chart("calibration", label, draw)
