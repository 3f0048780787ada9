"""main.py and train.py: the official training command."""

from conftest import call

import train

OFFICIAL = "--model CMSA --use_spatial --distmodal --rnn LSTM --RAD_dir data_RAD --seed 1204"
OFFICIAL += " --gpu 0 --batch_size 64 --output saved_models/CMSA-Bio-MTPT --epochs 60 --lr 0.005"
OFFICIAL += " --clip_norm 0.25 --question_len 12 --num_hid 1024 --gamma 2 --num_stacks 2"
OFFICIAL += " --emb_init biowordvec --op c --abd_model_path a.pth --brain_model_path b.pth"
OFFICIAL += " --chest_model_path c.pth --modal_classifier_path m.pth --input start.pth"


def test_main_hands_its_arguments_to_train():
    ours, theirs = (call(script, "--help").stdout.split() for script in ("train.py", "main.py"))
    assert theirs[1] == "main.py" and theirs[2:] == ours[2:] and len(ours) > 100
    wrong = call("main.py", *"--model CMSA --batch_size 1".split())
    assert wrong.returncode == 2
    assert wrong.stderr == "error: --batch_size 1 is too small: at least 2 is wanted\n"


def test_every_official_training_argument_is_taken():
    words = OFFICIAL.split()
    settings = vars(train.parse_args(words)[0])
    for name, value in zip(words, [*words[1:], "--"]):
        if name.startswith("--"):
            given = str(settings[name.removeprefix("--")])
            assert given == ("True" if value.startswith("--") else value), name
    assert train.parse_args(["--epoch", "3"])[0].epochs == 3
