"""Pictures of pre-training's results: true and predicted masks, confusion."""

from utils import atomic_path


def draw_masks(path, organ_set, pairs, predicted, results):
    """Some held-out images with their true and predicted masks, as a PNG.

    pairs: (image uint8 (224, 224, 3), true mask (224, 224)) of each; predicted: masks
    (224, 224); all tensors. results: the organ's, with "iou" and "mean_iou".
    """
    matplotlib, plt = plotting()
    count = len(organ_set.classes)
    tab20 = plt.get_cmap("tab20")
    colours = matplotlib.colors.ListedColormap(
        ["black", *(tab20(i % 20) for i in range(count - 1))]
    )
    in_classes = {"cmap": colours, "vmin": -0.5, "vmax": count - 0.5, "interpolation": "nearest"}
    figure, axes = plt.subplots(
        len(pairs), 3, figsize=(8.2, 2.15 * len(pairs) + 0.7), squeeze=False, layout="constrained"
    )
    for row, ((image, mask), guess) in enumerate(zip(pairs, predicted)):
        pictures = (("image", image), ("true mask", mask), ("predicted mask", guess))
        for axis, (title, picture) in zip(axes[row], pictures):
            axis.imshow(picture.numpy(), **({} if title == "image" else in_classes))
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title)
    handles = []
    for index, name in enumerate(organ_set.classes):
        iou = results["iou"][name]
        label = f"{name}  {'-' if iou is None else f'{iou:.2f}'}"
        patch = matplotlib.patches.Patch(facecolor=colours(index), edgecolor="grey", label=label)
        handles.append(patch)
    figure.legend(
        handles=handles,
        loc="outside right upper",
        fontsize=8,
        title="IoU, held-out images",
        title_fontsize=8,
    )
    figure.suptitle(f"{organ_set.organ}: mean IoU {results['mean_iou']:.3f}{_note(organ_set)}")
    save_figure(figure, path)


def draw_confusion(path, organ_set, table):
    """The confusion of the held-out images, or of their pixels for masks, as a PNG.

    table: int64 (classes, classes), rows truth. The picture has each row in percent.
    """
    _, plt = plotting()
    table, count = table.numpy(), len(organ_set.classes)
    percent = 100 * table / table.sum(1, keepdims=True).clip(min=1)
    segmentation = organ_set.task == "segmentation"
    side = max(3.6, 0.55 * min(count, 25) + 1.8)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row in range(count if count <= 25 else 0):  # more than that can't be read
        for column in range(count):
            if percent[row, column] < 0.5:
                continue
            text = f"{percent[row, column]:.0f}%"
            text += "" if segmentation else f"\n{int(table[row, column])}"
            axis.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9 if count < 8 else 7,
                color="white" if percent[row, column] > 55 else "black",
            )
    every = -(-count // 50)
    names = organ_set.classes[::every]
    axis.set_xticks(range(0, count, every), names, rotation=45, ha="right")
    axis.set_yticks(range(0, count, every), names)
    unit = "pixels" if segmentation else "images"
    title = f"{organ_set.organ}, held-out {unit}{_note(organ_set)}"
    axis.set(xlabel="predicted", ylabel="true", title=title)
    save_figure(figure, path)


def _note(organ_set):
    """The mark of drawings in a title."""
    return " (PHANTOM)" if organ_set.phantom else ""


def plotting():
    """matplotlib and its pyplot, without a screen; class names are no formulas."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False
    from matplotlib import pyplot as plt

    return matplotlib, plt


def save_figure(figure, path):
    """Write a figure as a PNG, atomically, and close it."""
    _, plt = plotting()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
