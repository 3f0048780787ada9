"""Ask a trained model one question about one image: prints the ranked answers, and draws where the model looked.

python ask.py IMAGE "question"                      JPEG, PNG or DICOM; the newest run in saved_models/
python ask.py IMAGE "question" --input saved_models/RUN --show where.png
python ask.py --web                                 the same as a page on this machine (needs Gradio)
"""

import argparse
import importlib
import json
import math
import os
import signal
import tempfile
import textwrap
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional as F

from base_model import is_official
from dataset_RAD import MAX_PIXELS, SIZE, encode, read_image, to_float, tokenize
from engine import USED_KEYS, check_checkpoint, find_checkpoint, make_model
from utils import UserError, atomic_path, choose_device, load_checkpoint, run_main, say

HERE = Path(__file__).resolve().parent
IMAGE_TYPES = ("abdomen", "head", "chest")  # organ order everywhere
CERTAIN, LIKELY = 0.6, 0.1  # an image type, an answer less probable than this gets a warning
NOT_FOR_DIAGNOSIS = "This is research software. It is not for diagnosis."
CAPTION = (
    "Where: for each word, how its tokens spread their attention over the 7x7 cells of the image (P), mean over the 49 query cells, "
    "upsampled; 1 is an even spread. Which words: for each word (row), how they spread it over the words (R), the same mean; a row sums "
    "to 1 with the padding behind the question. [word]: unknown to the model. First block of CMSA. Attention shows what the model mixed, "
    "not why it answered."
)


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=NOT_FOR_DIAGNOSIS)
    add = parser.add_argument
    add(
        "image",
        type=Path,
        nargs="?",
        metavar="IMAGE",
        help="JPEG, PNG, another common picture format, or DICOM",
    )
    add("question", nargs="?", help="in English, in quotes")
    add(
        "--input",
        type=Path,
        help="run folder or checkpoint file (default: the newest run in saved_models/)",
    )
    add("--top", type=int, default=5, help="answers to print (default: 5)")
    add(
        "--show",
        type=Path,
        metavar="PICTURE.png",
        help="write a picture of where the model looked (CMSA)",
    )
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (default: the first GPU if any)")
    add("--web", action="store_true", help="serve a page on 127.0.0.1 instead (needs Gradio)")
    add("--port", type=int, default=7860, help="of --web (default: 7860)")
    args = parser.parse_args(arguments)
    if args.top < 1:
        raise UserError(f"--top {args.top} is too small")
    if not 0 < args.port < 65536:
        raise UserError(f"--port {args.port}: a number from 1 to 65535 is wanted")
    if args.web and (args.image or args.show or args.json):
        raise UserError(
            "--web asks on its page: it takes no image, no question, no --show and no --json"
        )
    if not args.web and args.question is None:
        raise UserError(
            'an image and a question are wanted: ask.py IMAGE "question"; or --web for a page'
        )
    if args.show and (args.show.suffix.lower() != ".png" or args.show.is_dir()):
        raise UserError(f"--show {args.show}: the name of a .png file is wanted")
    return args


def optional(name):
    """Import a package that may not be installed. Raises UserError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"{name.partition('.')[0]} is not installed, which this needs: pip install {name.partition('.')[0]}"
        ) from None


# ---------------------------------------------------------------- images


def read_any_image(path):
    """A JPEG, PNG (all that read_image takes) or DICOM file as uint8 (224, 224, 3), resized as training images are. Raises UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}: the name of one image file is wanted"
        )
    try:
        with open(path, "rb") as file:
            dicom = file.read(132)[128:] == b"DICM"
        if not dicom:
            return read_image(path)
        pixels = Image.fromarray(np.rint(read_dicom(path) * 255).astype(np.uint8))
        return np.asarray(pixels.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    except (UserError, PermissionError) as error:
        raise (
            error
            if isinstance(error, UserError)
            else UserError(f"{path} can't be read ({error.strerror})")
        ) from None
    except Exception as error:  # PIL and pydicom raise many types for damaged files
        if isinstance(error, Image.DecompressionBombError) or str(error) == "too large":
            raise UserError(
                f"{path} has more than {MAX_PIXELS:,} pixels: make it smaller first"
            ) from None
        reason = (
            f" ({' '.join(str(error).split())[:120] or type(error).__name__})"
            if dicom
            else ", or neither a picture nor DICOM"
        )
        raise UserError(f"{path} can't be read: it is damaged{reason}") from None


def read_dicom(path):
    """A DICOM file's frame, the middle one of several, as its author would see it: float64 (H, W) or (H, W, 3) in [0, 1].

    Grey: rescaled, then its first VOI LUT or window, without either from its smallest value to its largest; MONOCHROME1 inverted.
    Colour: RGB, from YBR and palettes too. Raises UserError for a file without pixels or in a compression that can't be read here.
    """
    pixels = optional("pydicom.pixels")
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.TransferSyntaxUID.is_deflated:  # a small file can hold one that fills the memory
            with open(path, "rb") as file:
                file.seek(132 + 12 + meta.FileMetaInformationGroupLength)
                inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                if len(inflate.decompress(file.read(), 4 * MAX_PIXELS)) == 4 * MAX_PIXELS:
                    raise ValueError("too large")
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if "Rows" not in header or "PhotometricInterpretation" not in header:
            raise UserError(
                f"{path} is DICOM without an image ({header.get('Modality') or 'no modality'})"
            )
        if header.Rows * header.Columns > MAX_PIXELS:
            raise ValueError("too large")
        syntax = header.file_meta.TransferSyntaxUID
        frame = (int(header.get("NumberOfFrames") or 1) - 1) // 2
        try:
            stored = pixels.pixel_array(
                pydicom.dcmread(path) if syntax.is_deflated else path, index=frame
            )  # this frame only; YBR comes as RGB
        except (RuntimeError, NotImplementedError):
            if not syntax.is_compressed:
                raise
            raise UserError(
                f"{path} is compressed ({syntax.name}) and can't be decoded here: save it uncompressed, or install a decoder with "
                "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
            ) from None
        if header.PhotometricInterpretation == "PALETTE COLOR":
            stored = pixels.apply_color_lut(stored, header)
            return stored / np.iinfo(stored.dtype).max
        if stored.ndim == 3:
            return np.clip(stored / (2**header.BitsStored - 1), 0, 1)
        for groups in (
            header.get("SharedFunctionalGroupsSequence"),
            (header.get("PerFrameFunctionalGroupsSequence") or [])[frame:],
        ):
            for name in (
                "PixelValueTransformationSequence",
                "FrameVOILUTSequence",
            ):  # enhanced files keep the two below, per frame
                if groups and groups[0].get(name):
                    header.update(groups[0][name].value[0])
        kind = np.float64 if stored.size < MAX_PIXELS // 4 else np.float32  # 80 M float64 take 3 GB
        values = np.asarray(pixels.apply_modality_lut(stored, header), kind)
        grey = to_grey(values, header, pixels, stored != header.get("PixelPaddingValue"))
    return 1 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey


def to_grey(values, header, pixels, inside):
    """Rescaled values (H, W) -> [0, 1] by the header's VOI LUT or window (DICOM PS3.3 C.11.2), else over the range of those `inside`."""
    if header.get("VOILUTSequence"):
        bits = header.VOILUTSequence[0].LUTDescriptor[2]
        return np.clip(
            pixels.apply_voi(np.rint(values).astype(np.int64), header) / (2**bits - 1), 0, 1
        )
    centres, widths = (
        np.atleast_1d(np.asarray(header.get(name) or [], np.float64))
        for name in ("WindowCenter", "WindowWidth")
    )
    if centres.size and widths.size and widths[0] > 0:
        centre, width, kind = (
            float(centres[0]),
            float(widths[0]),
            header.get("VOILUTFunction", "LINEAR"),
        )
        if kind == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        if kind == "LINEAR":  # the standard's: both ends of the window are pixel values
            centre, width = centre - 0.5, max(width - 1, 1e-9)
        return np.clip((values - centre) / width + 0.5, 0, 1)
    seen = values[inside] if inside.any() else values
    return np.clip((values - seen.min()) / max(seen.max() - seen.min(), 1e-9), 0, 1)


# ---------------------------------------------------------------- the model


def load(path, device="cpu"):
    """A checkpoint of ours, file -> (model in eval mode on the device, what is kept beside its weights). Raises UserError."""
    state = load_checkpoint(path)
    if is_official(state):
        raise UserError(
            f"{path} is a checkpoint of the official code, which holds neither its words nor its answers: "
            "test.py --input can evaluate it, ask.py needs one of train.py's"
        )
    kept = check_checkpoint(state, path, USED_KEYS)
    model = make_model(kept, path)
    return model.to(device).eval(), {
        key: value for key, value in kept.items() if key not in ("model", "random")
    } | {"path": str(path)}


def read_question(kept, question):
    """A question -> (token ids, the words that the model reads, those of them that it does not know). Raises UserError if none is known."""
    length, known = (
        kept["question_len"],
        {word: index for index, word in enumerate(kept["dictionary"])},
    )
    tokens, unknown = encode(question, known, length)
    words = tokenize(question)[:length]
    if not words:
        raise UserError("the question is empty")
    if len(unknown) == len(words):
        raise UserError(
            f"the model knows none of the question's words ({textwrap.shorten(', '.join(words), 200)}): ask in English, "
            "in words of its training questions"
        )
    return tokens, words, list(dict.fromkeys(unknown))


def see(model, kept, image):
    """An image uint8 (224, 224, 3) -> the encoders' maps (1, E, width, 7, 7) and organ logits (1, 3), or None without a classifier.

    A model trained with blanked images gets what it was trained on: zeros (engine.Inputs).
    """
    device = next(model.parameters()).device
    images = to_float(torch.from_numpy(np.array(image))[None].to(device))
    blank = kept.get("question_only", False)
    images = torch.zeros_like(images) if blank else images
    maps, organs = model.image.see(images)
    if blank and kept.get("frozen"):
        maps, organs = torch.zeros_like(maps), None if organs is None else torch.zeros_like(organs)
    return maps, organs


@torch.inference_mode()
def answer(model, kept, image, question, top=5):
    """What `--json` prints: ranked answers with their probabilities, image type, unknown words, warnings. Raises UserError.

    image: uint8 (224, 224, 3). After a sigmoid loss the answers' probabilities need not sum to 1.
    """
    tokens, words, unknown = read_question(kept, question)
    if kept.get("image_only"):
        tokens = [len(kept["dictionary"])] * len(tokens)  # all padding, as in training
    maps, organs = see(model, kept, image)
    output = model(None, torch.tensor([tokens], device=maps.device), maps, organs)
    best = model.probabilities(output.logits)[0].cpu().topk(min(top, len(kept["answers"])))
    types, notes = None, []
    if kept["data"]["name"] == "phantom set":
        notes.append(
            "this model was trained on the PHANTOM SET, drawings with made-up questions: its answers say nothing about radiology"
        )
    if kept.get("image_only"):
        notes.append("this model was trained without questions: it answers from the image alone")
    if kept.get("question_only"):
        notes.append("this model was trained without images: it answers from the question alone")
    elif organs is not None:
        types = dict(
            zip(IMAGE_TYPES, (round(p, 6) for p in organs[0].float().softmax(-1).tolist()))
        )
        likely = max(types, key=types.get)
        if types[likely] < CERTAIN:
            notes.append(
                f"the image type is uncertain (most likely {likely}, {types[likely]:.2f}): the model knows abdomen, head and chest"
            )
    if best.values[0] < LIKELY:
        notes.append("no answer is likely: the question may be of a kind that the model never saw")
    if unknown:
        notes.append(f"unknown to the model, and read as padding: {', '.join(unknown)}")
    if cut := tokenize(question)[len(words) :]:
        notes.append(
            f"the model reads {len(words)} words of a question, and not these: {' '.join(cut)}"
        )
    return {
        "answers": [
            [kept["answers"][i], round(p, 6)]
            for p, i in zip(best.values.tolist(), best.indices.tolist())
        ],
        "image_type": types,
        "unknown_words": unknown,
        "warnings": notes,
        "model": model.fusion,
        "checkpoint": kept["path"],
        "data": kept["data"]["name"],
        "not_for_diagnosis": True,
    }


# ---------------------------------------------------------------- the picture


@torch.inference_mode()
def attention_maps(model, kept, image, question):
    """(words, P (words, 7, 7), R (words, words + 1)) of CMSA's first block, mean over query cells; R's last column is all padding.

    Unknown words come in brackets. Raises UserError for BAN and SAN.
    """
    if model.fusion != "CMSA":
        raise UserError(f"--show needs a CMSA model, {kept['path']} is {model.fusion}")
    tokens, words, unknown = read_question(kept, question)
    visual = model.image.mix(*see(model, kept, image))  # (1, 49, 512)
    states = model.q_emb(
        model.w_emb(torch.tensor([tokens], device=visual.device))
    )  # (1, T, hidden)
    cells, others = (
        maps[0].mean(1).float().cpu()
        for maps in model.cmsa.attention(visual, states, model.spatial)
    )  # (T, 49), (T, T)
    count = len(words)
    others = torch.cat([others[:count, :count], others[:count, count:].sum(1, keepdim=True)], 1)
    return (
        [f"[{word}]" if word in unknown else word for word in words],
        cells[:count].view(count, 7, 7).numpy(),
        others.numpy(),
    )


def draw_attention(model, kept, image, question, result):
    """A matplotlib figure: the image, where each word looks in it, and which words it looks at. `result` is `answer`'s."""
    words, cells, others = attention_maps(model, kept, image, question)
    words = [
        textwrap.shorten(word, 16, placeholder="…") if " " in word else word[:16] for word in words
    ]
    with rc_context({"text.parse_math": False}):  # a "$" in a question is no formula
        figure = Figure(figsize=(16, 8.2), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)  # no pyplot: the page draws from another thread than the main one
        best, probability = result["answers"][0]
        question, best = (
            textwrap.shorten(text, width, placeholder=" …")
            for text, width in ((question, 110), (best, 60))
        )
        figure.suptitle(f"{question}    {best} ({probability:.2f})")
        left, right = figure.subfigures(1, 2, width_ratios=(1.55, 1))
        columns = math.ceil(math.sqrt(1.3 * (len(words) + 1)))
        panels = left.subplots(-(-(len(words) + 1) // columns), columns, squeeze=False).ravel()
        relative = cells * cells[0].size  # 1: an even spread over the cells
        heat = F.interpolate(
            torch.from_numpy(relative)[:, None],
            size=(SIZE, SIZE),
            mode="bilinear",
            align_corners=False,
        )[:, 0].numpy()
        top = max(
            2.0, float(relative.max())
        )  # one scale for all words: a word that looks nowhere in particular stays dark
        for panel in panels:
            panel.axis("off")
        for panel, title in zip(panels, ["(the image)", *words]):
            panel.imshow(image)
            panel.set_title(title, fontsize=11)
        for panel, one in zip(panels[1:], heat):
            panel.imshow(
                one, cmap="inferno", vmin=0, vmax=top, alpha=0.2 + 0.6 * one / top
            )  # the image stays visible where there is little
        left.colorbar(
            ScalarMappable(Normalize(0, top), "inferno"),
            ax=list(panels),
            location="bottom",
            shrink=0.5,
            aspect=40,
            label="attention, times an even spread",
        )
        axes = right.subplots()
        drawn = axes.imshow(others, cmap="viridis", vmin=0, vmax=max(float(others.max()), 1e-9))
        axes.set_xticks(range(len(words) + 1), [*words, "padding"], rotation=60, ha="right")
        axes.set_yticks(range(len(words)), words)
        axes.set_title("which words each word looks at", fontsize=11)
        right.colorbar(
            drawn, ax=axes, location="bottom", shrink=0.7, aspect=40, label="share of attention"
        )
        figure.supxlabel(textwrap.fill(f"{CAPTION} {NOT_FOR_DIAGNOSIS}", 190), fontsize=9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks
            figure.canvas.draw()
    return figure


# ---------------------------------------------------------------- the page


def build_page(model, kept, top):
    """The Gradio page: an image or DICOM file and a question in; answers, picture and notes out."""
    gradio = optional("gradio")

    def reply(file, question):
        """-> (answers {text: probability}, picture or what the model saw, uint8 (H, W, 3), notes). Errors go into the notes."""
        try:
            if not file:
                raise UserError("an image is wanted")
            image = read_any_image(file)
            result = answer(model, kept, image, question or "", top)
        except UserError as error:
            return None, None, f"error: {str(error).replace(str(file), Path(file or '').name)}"
        picture = (
            np.asarray(draw_attention(model, kept, image, question, result).canvas.buffer_rgba())[
                ..., :3
            ]
            if model.fusion == "CMSA"
            else image
        )
        return dict(result["answers"]), picture, "\n".join(describe(result))

    with gradio.Blocks(title="ask.py", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gradio.Markdown(
            f"# Ask about a radiology image\n**{NOT_FOR_DIAGNOSIS}** What you give here stays on this machine and is deleted at the end."
        )
        with gradio.Row():
            with gradio.Column():
                file = gradio.File(
                    label="image: JPEG, PNG or DICOM, at most 20 MB",
                    type="filepath",
                    file_count="single",
                )
                question = gradio.Textbox(label="question", max_lines=1)
                button = gradio.Button("Ask", variant="primary")
            with gradio.Column():
                answers = gradio.Label(
                    label="answers"
                    if model.softmax
                    else "answers (probabilities need not sum to 100%)",
                    num_top_classes=top,
                )
                notes = gradio.Textbox(label="notes", lines=4)
        picture = gradio.Image(label="where the model looked", format="png", interactive=False)
        for event in (button.click, question.submit):
            event(
                reply,
                [file, question],
                [answers, picture, notes],
                api_name=False,
                concurrency_limit=1,
                concurrency_id="model",
            )
    return page


def serve(model, kept, top, port):
    """Serve the page on 127.0.0.1 until interrupted. Nothing is shared, reported, or kept. Raises UserError when the port is taken."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # such variables could share the page or open folders to it
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a plain kill must not leave the uploads behind
    with tempfile.TemporaryDirectory(
        prefix="ask-"
    ) as folder:  # of uploads and pictures; goes with us
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "GRADIO_TEMP_DIR": folder,
            "HF_HUB_OFFLINE": "1",
        }
        page = build_page(model, kept, top)
        try:
            _, address, _ = page.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[],
                max_file_size=20 * 2**20,
            )
        except OSError as error:
            raise UserError(
                f"--port {port} can't be used ({' '.join(str(error).split())[:80]}): name another one"
            ) from None
        say(f"{address}  (Ctrl-C ends it). {NOT_FOR_DIAGNOSIS}")
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


# ---------------------------------------------------------------- command line


def describe(result):
    """The lines below the answers: image type, model, warnings, and what this is not for."""
    types = result["image_type"]
    listed = (
        ", ".join(
            f"{name} {types[name]:.2f}" for name in sorted(types, key=types.get, reverse=True)
        )
        if types
        else "not told by this model"
    )
    return [
        f"image type: {listed}",
        f"model: {result['model']}, {result['checkpoint']}, trained on {result['data']}",
        *(f"WARNING: {note}" for note in result["warnings"]),
        NOT_FOR_DIAGNOSIS,
    ]


def main():
    args = parse_args()
    device = choose_device(args.gpu)
    if args.web:
        optional("gradio")  # before the model is read
        return serve(
            *load(find_checkpoint(args.input, None, HERE / "saved_models")[0], device),
            args.top,
            args.port,
        )
    question = args.question.encode(
        "utf-8", "replace"
    ).decode()  # bytes of a shell that are no text
    image = read_any_image(args.image)
    model, kept = load(find_checkpoint(args.input, None, HERE / "saved_models")[0], device)
    result = answer(model, kept, image, question, args.top)
    if args.show:
        figure = draw_attention(model, kept, image, question, result)
        with atomic_path(args.show) as temporary:
            figure.savefig(temporary, format="png")
    if args.json:
        say(json.dumps(result))
        return
    width = max(len(text) for text, _ in result["answers"])
    for text, probability in result["answers"]:
        say(f"{text:{width}}  {probability:.3f}")
    say("\n".join(describe(result) + ([f"written: {args.show}"] if args.show else [])))


if __name__ == "__main__":
    run_main(main)
