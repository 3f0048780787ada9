"""Train, under the official code's name: `python main.py ...` is `python train.py ...`.

docs/FAITHFUL.md lists what the official command lines do here.
"""

import train
import utils

if __name__ == "__main__":
    utils.run_main(train.main)
