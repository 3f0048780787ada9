"""Hostile input: some cases of fuzz.py for each loader (`python fuzz.py` runs thousands), and the unharmed files, which must load."""
import itertools
import shutil

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install hypothesis")
from hypothesis import given, seed, settings  # noqa: E402

import fuzz  # noqa: E402

CASES = 400  # over all loaders
UNHARMED = {
    "json": lambda: {"x.json": fuzz.as_json(fuzz.TRAIN)}, "public": lambda: {fuzz.rad.PUBLIC_JSON: fuzz.as_json(fuzz.PUBLIC)} | fuzz.pics(), "processed": fuzz.processed,
    "archive": fuzz.archive, "prepared": lambda: {name.replace("maps.h5", fuzz.prepared()[3][0]): content for name, content in fuzz.prepared()[0].items()},
    "images": lambda: dict.fromkeys(fuzz.READERS, fuzz.pictures()["palette.png"]), "dicom": lambda: {"x.dcm": fuzz.dicoms()["ct"]},
    "lists": lambda: fuzz.organ_files() | {"train.txt": b"".join(f"image{i}.png mask{i}.png\n".encode() for i in range(5))},
    "folders": lambda: {f"train/{name}/{i}.png": fuzz.grey_bytes(20 * i + j) for i in range(3) for j, name in enumerate("ab")},
    "embedding": lambda: {"glove.6B.zip": fuzz.tables()["glove.6B.zip"], "BioWordVec_d3.vec.bin": fuzz.tables()["BioWordVec_d3.vec.bin"]},
    "checkpoint": lambda: {"best.pth": fuzz.save(fuzz.run_state())}, "part": lambda: {"brain.pth": fuzz.save(fuzz.part_state())},
    "model": lambda: {"best.pth": fuzz.save(fuzz.model_state())}, "predictions": lambda: fuzz.RESULT_FILES, "run": lambda: fuzz.RESULT_FILES,
    "report": lambda: fuzz.RESULT_FILES}


@pytest.mark.parametrize("name", fuzz.LOADERS)
def test_unharmed_files_load(name, tmp_path):
    assert fuzz.attempt(fuzz.LOADERS[name], UNHARMED[name](), tmp_path) == "accepted"


@pytest.mark.parametrize("name", fuzz.LOADERS)
def test_hostile_files_load_or_are_refused(name, tmp_path):
    loader, numbers = fuzz.LOADERS[name], itertools.count()
    share = loader.weight / sum(one.weight for one in fuzz.LOADERS.values())

    @seed(0)
    @settings(max_examples=max(3, round(CASES * share)), **fuzz.SETTINGS)
    @given(loader.cases())
    def cases(files):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        try:
            fuzz.attempt(loader, files, folder, seconds=5)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    cases()


def test_what_is_a_violation(tmp_path):
    """The fuzzer sees another exception, a slow loader, code that ran, and a message that does not help."""
    def run(loader):
        return fuzz.attempt(fuzz.Loader(None, loader, 1), {}, tmp_path, seconds=0.5)
    with pytest.raises(fuzz.Violation, match="over 0.5 s"):
        run(lambda _: next(i for i in itertools.count() if i < 0))
    for code, what in ((fuzz.CODE, "code in a file"), ("raise UserError('elsewhere')", "names no file")):
        with pytest.raises(fuzz.Violation, match=what):
            run(lambda _: exec(code, vars(fuzz)))
    with pytest.raises(KeyError):
        run(lambda _: {}["key"])
