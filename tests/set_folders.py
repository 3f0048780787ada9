"""Small made-up data sets in the layouts of SLAKE, VQA-Med and one's own, for several tests."""

import json
import pickle

import numpy as np
from PIL import Image


def save_pictures(folder, names, level=None):
    """A grey picture under each name; its level is drawn from the name, or given."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        grey = (37 * sum(name.encode())) % 200 + 50 if level is None else level
        Image.fromarray(np.full((9, 8), grey, np.uint8)).save(folder / name)


def own(folder, train=80, test=20):
    """One's own set with three fields a record: bright and dark pictures, five records each."""
    records = []
    for number in range(train + test):
        image = number // 5
        name, dark = f"part {image % 2}/p{image}.png", image % 2 == 1
        save_pictures(folder / "images", [name], 30 if dark else 220)
        asked = ("Is it dark?", "Yes" if dark else "no")
        if number % 3 == 0:
            asked = ("How bright is it?", "dark" if dark else "bright")
        records.append({"image": name, "question": asked[0], "answer": asked[1]})
    (folder / "trainset.json").write_text(json.dumps(records[:train]))
    (folder / "testset.json").write_text(json.dumps(records[train:]))
    return folder


def slake_record(qid, image, **changes):
    """A record with SLAKE's fields."""
    return {
        "img_id": image,
        "img_name": f"xmlab{image}/source.jpg",
        "question": "What modality is used?",
        "answer": "MRI",
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "MRI",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "content_type": "Modality",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
    } | changes


def slake(folder, validation="validate.json", **parts):
    """SLAKE in English and Chinese. parts: records in place of those of train, val or test."""
    lists = {
        "train": [
            slake_record(0, 1, answer=""),
            slake_record(1, 1),
            slake_record(2, 2, location="Chest_lung", answer_type="CLOSED ", answer="Yes"),
            slake_record(3, 2, q_lang="zh", question="这张MRI图片正常吗？", answer="否"),
            slake_record(4, 3, location="Pelvic Cavity", content_type="KG"),
        ],
        "val": [
            slake_record(5, 4, location="Neck", question="Which organ?", answer="Liver"),
            slake_record(6, 5, q_lang="zh", question="图片", answer="腹部"),
        ],
        "test": [
            slake_record(7, 6, location="Brain_Tissue"),
            slake_record(8, 1, q_lang="zh", question="图片", answer="否"),
        ],
    } | parts
    folder.mkdir(parents=True, exist_ok=True)
    names = {"train": "train.json", "val": validation, "test": "test.json"}
    for part, records in lists.items():
        if name := names[part]:
            (folder / name).write_text(json.dumps(records), encoding="utf-8")
    save_pictures(folder / "imgs", [f"xmlab{number}/source.jpg" for number in range(1, 7)])
    return folder


def path_vqa(folder, place="qas/{}/{}_qa.json", **parts):
    """PathVQA: a list a part, and images whose names the lists give without an ending.

    place: of the lists, {} stands for the part. parts: lists in place of those of train, val, test.
    """
    for number, part in enumerate(("train", "val", "test")):
        save_pictures(
            folder / "images" / part, [f"{part}_{i:04}.jpg" for i in range(2)], 60 * number
        )
        asked = [
            ("is it a nerve?", "yes"),
            ("what is present?", "liver"),
            ("where?", "in the lobe"),
        ]
        records = [
            {"image": f"{part}_{i % 2:04}", "question": question, "answer": answer}
            for i, (question, answer) in enumerate(asked[: 3 - number])
        ]
        path = folder / place.format(part, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = parts.get(part, records)
        dumped = pickle.dumps(content) if path.suffix == ".pkl" else json.dumps(content).encode()
        path.write_bytes(dumped)
    return folder


VQA_MED = {  # lines of each category; the last column but one of the test file is left out
    "train": {
        "C1_Modality": "synpic1|is this a ct?|yes\nsynpic2|what kind of image is this?|mri - t1",
        "C2_Plane": "synpic1|which plane?|axial\n\nsynpic2|which plane?|coronal",
        "C3_Organ": "synpic1|which organ?|lung\nsynpic2|which organ?|skull and contents",
        "C4_Abnormality": "synpic1|what is abnormal?|M\u00e9ni\u00e8re's disease",
    },
    "val": {
        "C1_Modality": "synpic3|is this a ct?|no",
        "C2_Plane": "synpic3|which plane?|axial",
        "C3_Organ": "synpic3|which organ?|breast",
        "C4_Abnormality": "synpic3|what is abnormal?|nothing",
    },
}


def vqa_med(folder, encoding="cp1252", changes=None):
    """VQA-Med 2019, training and validation. changes: {"C1_Modality_train": other text}."""
    titles = {"train": "Training", "val": "Validation"}
    for part, lists in VQA_MED.items():
        place = folder / f"ImageClef-2019-VQA-Med-{titles[part]}"
        (place / "QAPairsByCategory").mkdir(parents=True)
        for name, text in lists.items():
            text = (changes or {}).get(f"{name}_{part}", text)
            path = place / "QAPairsByCategory" / f"{name}_{part}.txt"
            path.write_bytes(text.encode(encoding))
        numbers = (1, 2) if part == "train" else (3,)
        images = place / f"{part.title()}_images"
        save_pictures(images, [f"synpic{number}.jpg" for number in numbers])
    return folder


def vqa_med_test(folder):
    """The test part with answers beside it."""
    place = folder / "VQAMed2019Test"
    save_pictures(place / "VQAMed2019_Test_Images", ["synpic4.jpg"])
    lines = ["synpic4|modality|is this a ct?|maybe#yes", "synpic4|plane|which plane?|sagittal#side"]
    lines += ["synpic4|abnormality|what is abnormal?|nothing"]
    path = place / "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
    path.write_text("\n".join(lines))
    return folder
