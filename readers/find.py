"""Which folder holds the data where none is named: the user's, or a download."""

from readers.data_folder import advice, find_form
from readers.download import NoNetwork, download_public
from readers.records import DATA_RAD
from utils import cache_base, writable


def data_home():
    """data_RAD, or the cache when data_RAD can't be written."""
    return DATA_RAD if writable(DATA_RAD) else cache_base()


def find_folder(download, log=print):
    """data_RAD/, data_RAD/public/ or that of the cache, whichever has data, or None.

    Where none has any it downloads the public release into data_RAD/public/, if `download` is
    True and there is a network.
    """
    for folder in (DATA_RAD, DATA_RAD / "public", cache_base() / "public"):
        if find_form(folder):
            return folder
    if hint := advice(DATA_RAD):
        log(f"WARNING: no data in {DATA_RAD} yet: {hint}")
    if not download:
        return None
    try:
        return download_public(data_home() / "public", log=log)
    except NoNetwork as error:
        log(f"VQA-RAD can't be downloaded here ({error}).")
        return None
