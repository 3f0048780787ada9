"""Official checkpoints as models of this project: keys are renamed, sizes are inferred.

docs/FAITHFUL.md shows that the official weights give the official outputs.
"""

from base_model import VISUAL_DIM, VQAModel
from decoders import PretrainingModel
from readers.checkpoints import is_state_dict, sizes_of
from utils import UserError, reason

# Key prefixes of official checkpoints beside ours. "{}" stands for a number.
_IMAGE_PREFIXES = {
    "modal_classifier.": "image.image_type.",
    "abd_v_emb.": "image.encoders.0.",
    "brain_v_emb.": "image.encoders.1.",
    "chest_v_emb.": "image.encoders.2.",
    "abd_convert.linear.": "image.convert.0.",
    "brain_convert.linear.": "image.convert.1.",
    "chest_convert.linear.": "image.convert.2.",
}
_FUSION_PREFIXES = {
    "CMSA": {"cmsa0.": "cmsa.blocks.0.", "cmsa1.": "cmsa.blocks.1.", "cmsa.": "cmsa.blocks.0."},
    "BAN": {
        "v_att.logits.h_mat_g": "ban.parametrizations.map.original0",
        "v_att.logits.h_mat_v": "ban.parametrizations.map.original1",
        "v_att.logits.h_bias": "ban.map_bias",
        "v_att.logits.v_net.main.": "ban.visual.",
        "v_att.logits.q_net.main.": "ban.question.",
        "b_net.{}.v_net.main.": "ban.joint_visual.{}.",
        "b_net.{}.q_net.main.": "ban.joint_question.{}.",
        "q_prj.{}.main.": "ban.project.{}.",
    },
}
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
MAX_GLIMPSES = 8  # of BAN


def load_official(state_dict):
    """See base_model.load_official."""
    official = official_state(state_dict)
    if "w_emb.emb.weight" not in official or "classifier.main.3.weight_v" not in official:
        raise UserError(
            "not an official VQA checkpoint: it lacks w_emb.emb.weight or "
            "classifier.main.3.weight_v"
        )
    fusion = "BAN" if any(key.startswith("b_net.") for key in official) else "CMSA"
    if fusion == "CMSA" and not any(key.startswith(("cmsa0.", "cmsa.")) for key in official):
        raise UserError(
            "this official checkpoint is neither CMSA nor BAN; only those two can be loaded"
        )
    if "abd_v_emb.conv1.weight" not in official:
        raise UserError(
            "this official checkpoint has no abd_v_emb encoder: only those trained with "
            "--distmodal can be loaded"
        )
    sizes = _question_sizes(official, "")
    sizes["num_answers"] = _shape(official, "classifier.main.3.bias", 1)[0]
    if fusion == "CMSA":
        first = "cmsa0.g.weight" if "cmsa0.g.weight" in official else "cmsa.g.weight"
        sizes["use_spatial"] = _has_spatial(official, first, sizes["hidden"])
        sizes["blocks"] = 2 if "cmsa1.g.weight" in official else 1
    else:
        projections = [key for key in official if key.startswith("q_prj.")]
        sizes["glimpses"] = sum(key.endswith("weight_v") for key in projections)
    prefixes = dict(_IMAGE_PREFIXES)
    for theirs, ours in _FUSION_PREFIXES[fusion].items():
        prefixes |= {theirs.format(n): ours.format(n) for n in range(MAX_GLIMPSES)}
    return _load_renamed(lambda: VQAModel(fusion, **sizes), official, prefixes)


def load_official_pretraining(parts):
    """See base_model.load_official_pretraining."""
    tasks = {"seg_decoder": "segmentation", "cls_decoder": "classification"}
    found = [name for name in tasks if isinstance(parts, dict) and name in parts]
    if not found or not {"backbone", "cmsa"} <= set(parts):
        raise UserError(
            'not an official pre-training checkpoint: "backbone", "cmsa" and "seg_decoder" or '
            '"cls_decoder" are wanted'
        )
    decoder = found[0]
    official = {
        f"{part}.{key}": value
        for part in ("backbone", decoder, "cmsa")
        for key, value in official_state(parts[part]).items()
    }
    last = "final_conv3.bias" if decoder == "seg_decoder" else "fc.8.bias"
    classes = _shape(official, f"{decoder}.{last}", 1)[0]
    sizes = _question_sizes(official, "cmsa.")
    sizes["use_spatial"] = _has_spatial(official, "cmsa.cmsa.g.weight", sizes["hidden"])
    prefixes = {
        "backbone.": "encoder.",
        f"{decoder}.": "decoder.",
        "cmsa.": "compatibility.",
        "cmsa.cmsa.": "compatibility.cmsa.blocks.0.",
    }
    return _load_renamed(
        lambda: PretrainingModel(tasks[decoder], classes, **sizes), official, prefixes
    )


def official_state(checkpoint):
    """An official checkpoint's state dict without DataParallel's prefix. Raises UserError."""
    state = checkpoint
    if isinstance(checkpoint, dict):
        state = checkpoint.get("model_state", checkpoint)
    if not state or not is_state_dict(state):
        raise UserError(
            'not a checkpoint: a state dict of tensors, or {"model_state": ...} with one, is wanted'
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def _shape(official, key, dims):
    """The shape of a tensor with at least `dims` dimensions. Raises UserError for another."""
    if key not in official:
        raise UserError(f"this official checkpoint lacks {key}")
    if official[key].dim() < dims:
        raise UserError(f"this official checkpoint's {key} has fewer than {dims} dimensions")
    return official[key].shape


def _question_sizes(official, prefix):
    """The sizes of the question side, whose keys begin with `prefix`. Raises UserError."""
    rows, word_dim = _shape(official, f"{prefix}w_emb.emb.weight", 2)[:2]
    gates, hidden = _shape(official, f"{prefix}q_emb.rnn.weight_hh_l0", 2)[:2]
    rnn = "GRU" if gates == 3 * hidden else "LSTM"
    return {"ntoken": rows - 1, "word_dim": word_dim, "hidden": hidden, "rnn": rnn}


def _has_spatial(official, key, hidden):
    """True when the 8 spatial channels are among the inputs of the weights `key`."""
    return _shape(official, key, 2)[1] - VISUAL_DIM - hidden == 8


def _load_renamed(make, official, prefixes):
    """The model `make()` in eval mode with an official state dict, whose prefixes are renamed.

    Of several prefixes the longest counts. Raises UserError naming the first key or shape that
    does not fit. The shapes are compared before any memory is taken.
    """
    try:
        wanted = sizes_of(make)
    except Exception as error:  # torch raises many types for sizes that can't be
        raise UserError(
            f"no model has this official checkpoint's sizes ({reason(error)})"
        ) from None
    state = {}
    for key, value in official.items():
        theirs = max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default="")
        ours = prefixes.get(theirs, "") + key[len(theirs) :]
        if theirs.startswith("cmsa"):  # there the convolution and its BN are one Sequential
            ours = ours.replace(".W.0.", ".W.").replace(".W.1.", ".bn.")
        for end, parametrized in _WEIGHT_NORM.items():
            if ours.endswith(end):
                ours = ours.removesuffix(end) + parametrized
        if ours not in wanted:
            raise UserError(f"the official checkpoint has {key}, which this model has not")
        if value.dim() == 5:  # a 1x1x1 convolution is a linear layer
            value = value.flatten(1)
        if value.shape != wanted[ours]:
            raise UserError(
                f"the official checkpoint's {key} is {tuple(value.shape)}, this model's is "
                f"{tuple(wanted[ours])}"
            )
        state[ours] = value
    if missing := sorted(set(wanted) - set(state)):
        raise UserError(
            f"the official checkpoint has nothing for this model's {missing[0]} "
            f"(and {len(missing) - 1} more)"
        )
    model = make()
    model.load_state_dict(state)
    return model.eval()


def check_vocabulary_size(model, data, path):
    """Raise UserError when an official model's words or answers are not as many as the data's."""
    words, answers = model.w_emb.emb.num_embeddings - 1, model.classifier.main[-1].out_features
    if (words, answers) != (data.ntoken, data.num_answers):
        raise UserError(
            f"{path} knows {words} words and {answers} answers, {data.name} in {data.folder} has "
            f"{data.ntoken} and {data.num_answers}: name the archive it was trained on with "
            "--RAD_dir"
        )
