"""The page of `ask.py --web`: an image and a question in; answers, warnings and maps out."""

import contextlib
import os
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np

import ask
from readers.images import open_image, resize
from tools.ask_show import answer_maps
from tools.maps import LEAST_PEAK, OCCLUSION, cover, cover_falls, say_looks
from utils import PIP, UserError, log, optional, reason

GRADIO = 6  # the oldest version with such buttons
BUTTONS = ["fullscreen", "download"]  # of images; a third one would send them to a public place
SIDE, GAP = 448, 8  # pixels of an image and a map, and the black between the two
EXAMPLES = 4


def build_page(model, kept, top):
    """The Gradio page, not yet served. Raises UserError without Gradio, or with an old one."""
    gradio = optional("gradio")
    if int(gradio.__version__.partition(".")[0]) < GRADIO:
        raise UserError(
            f"Gradio {GRADIO} is wanted, not {gradio.__version__}: {PIP} --upgrade gradio"
        )

    def read(file):
        """readers.images.Picture of an uploaded file. Errors become messages of the page."""
        try:
            if not file:
                raise UserError("an image is wanted: choose a file")
            return open_image(file)
        except UserError as error:
            # the file's folder is a temporary one that says nothing to the reader
            raise message(str(error).replace(str(file), Path(file or "").name)) from None

    def message(text):
        return gradio.Error(text, duration=None, title="No answer", print_exception=False)

    def preview(file):
        return resize(read(file).image, SIDE) if file else None

    def reply(file, question):
        """-> warnings, {answer: probability}, notes, picture, sentence, CMSA's maps, a sentence."""
        opened = read(file)
        image = resize(opened.image)
        try:
            encoded = ask.encode_picture(model, kept, image)
            result = ask.answer_encoded(model, kept, encoded, question or "", top)
            falls, sentence, words, *look = answer_maps(model, kept, encoded, question)
        except UserError as error:
            raise message(str(error)) from None
        result |= ask.picture_facts(opened)
        warnings = "\n".join(result["warnings"])
        notes = "\n".join(
            [
                ask.describe_run(kept, model),
                *(line for line in ask.describe(result) if not line.startswith("WARNING")),
            ]
        )
        shown = [gradio.update(value=warnings, visible=bool(warnings)), dict(result["answers"])]
        shown += [notes, beside(opened.image, falls), sentence]
        if model.fusion != "CMSA":
            return shown
        return [*shown, word_pictures(image, words, look[0]), say_looks([look])]

    label = "answers" if model.softmax else "answers (probabilities need not sum to 100%)"
    with gradio.Blocks(title="ask.py", analytics_enabled=False) as page:
        gradio.Markdown(
            f"# Ask about a radiology image\n**{ask.NOT_FOR_DIAGNOSIS}** "
            "Give a JPEG, PNG or DICOM file of at most 20 MB. What you give here stays on this "
            "machine and is deleted at the end."
        )
        with gradio.Row():
            with gradio.Column():
                file = gradio.File(
                    label="image",
                    type="filepath",
                    file_count="single",
                )
                shown = {"interactive": False, "buttons": BUTTONS}
                seen = gradio.Image(label="the image as it is read", height=300, **shown)
                question = gradio.Textbox(label="question", max_lines=1)
                button = gradio.Button("Ask", variant="primary")
                if some := examples(kept):
                    gradio.Examples(some, [file, question], label="examples from the data set")
            with gradio.Column():
                warnings = gradio.Textbox(label="warnings", visible=False)
                answers = gradio.Label(label=label, num_top_classes=top)
                gradio.Markdown("The image, and in amber what the answer depends on:")
                picture = gradio.Image(show_label=False, format="png", **shown)
                sentence = gradio.Markdown(OCCLUSION)
                outputs = [warnings, answers, notes := gradio.Textbox(label="notes", render=False)]
                outputs += [picture, sentence]
                if model.fusion == "CMSA":
                    with gradio.Accordion("where CMSA looks for each word", open=False):
                        # two columns are as many as a telephone shows
                        words = gradio.Gallery(columns=2, height="auto", show_label=False, **shown)
                        outputs += [words, gradio.Markdown()]
                notes.render()
        file.change(preview, file, seen, api_name=False)
        for event in (button.click, question.submit):
            event(
                reply,
                [file, question],
                outputs,
                api_name=False,
                concurrency_limit=1,
                concurrency_id="model",
                show_progress_on=[answers, picture],  # an error blanks no text
            )
    return page


def beside(image, falls):
    """A Pillow image and the map of its answer side by side: uint8 (448, 904, 3)."""
    large = resize(image, SIDE)
    return np.concatenate(
        [large, np.zeros((SIDE, GAP, 3), np.uint8), cover_falls(large, falls, SIDE)], 1
    )


def word_pictures(image, words, over_cells):
    """[(picture, word)] of CMSA's maps, all of one scale."""
    relative = over_cells * over_cells[0].size  # 1: an even spread
    top = max(LEAST_PEAK, float(relative.max()))
    return [(cover(image, heat, top), word) for heat, word in zip(relative, words)]


def examples(kept):
    """Some [image file, question] of the data that the model was trained on, if they are there."""
    from dataset_RAD import find_data
    from readers.image_names import find_images

    folder, some = Path(kept["data"]["folder"]), {}
    with contextlib.suppress(UserError, OSError):
        if not folder.is_dir():
            return []
        data = find_data(folder, kept["data"].get("options"), log=lambda _: None)
        paths = find_images(data.folder, data.image_names).paths
        for one in data.test:
            if one.image_name in paths and len(some) < EXAMPLES:
                some.setdefault(one.image_name, [str(paths[one.image_name]), one.question])
    return list(some.values())


def serve(model, kept, top, port):
    """Serve the page on 127.0.0.1 until interrupted; nothing is shared, reported or kept.

    Raises UserError when the port is taken.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # such variables could share the page or open folders to it
    # a plain kill must not leave the uploads behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ask-") as folder:  # of uploads and pictures
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
                f"--port {port} can't be used ({reason(error, 80)}): name another one"
            ) from None
        log(f"{address}  (Ctrl-C ends it). {ask.NOT_FOR_DIAGNOSIS}")
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
