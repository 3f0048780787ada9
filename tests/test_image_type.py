"""image_type.py: rarer organs are drawn as often as others."""

import torch

from image_type import train_image_type


def test_rarer_organs_are_drawn_as_often(capsys):
    """An epoch has as many images of every organ, and at most 300 of one.

    A file gets one line, and no bar.
    """
    read = []

    def reader(keys):
        read.extend(keys)
        return torch.zeros(len(keys), 3, 2, 2)

    labels = {key: 0 for key in range(2)} | {key: 1 for key in range(10, 200)}
    labels |= {key: 2 for key in range(1000, 1310)}
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    train_image_type(classifier, reader, labels, torch.device("cpu"), 0, epochs=1)
    drawn = [[key for key in read if labels[key] == organ] for organ in range(3)]
    assert [len(keys) for keys in drawn] == [300, 300, 300]
    assert [len(set(keys)) for keys in drawn] == [2, 190, 300]
    assert not classifier.training
    assert capsys.readouterr() == ("training the image-type classifier\n", "")
