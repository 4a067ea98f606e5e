"""Services that ask for a login: their hosts, and how a person gets access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# service -> how a person gets access, in one sentence; shown as a hint and by `cxrprep doctor`.
ADVICE: Final[Mapping[str, str]] = {
    "physionet": "put your PhysioNet login into ~/.netrc (machine physionet.org login USER password PASSWORD, then "
    "chmod 600 ~/.netrc), or set PHYSIONET_USERNAME and PHYSIONET_PASSWORD",
    "kaggle": "create a token at https://www.kaggle.com/settings and save it as ~/.kaggle/access_token, "
    "or set KAGGLE_API_TOKEN",
    "google": "run: gcloud auth application-default login (or set GOOGLE_APPLICATION_CREDENTIALS to a key file)",
    "aws": "run: aws sso login, or aws configure (or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
    "box": "nothing is needed for NIH's public links; for the Box API set BOX_DEVELOPER_TOKEN",
    "huggingface": "make a token at https://huggingface.co/settings/tokens, and set HF_TOKEN, or run: hf auth login",
    "chexpert": "sign the agreement at https://stanfordaimi.azurewebsites.net/, save the link that you get in a file, "
    "and name it: --url-file FILE, CHEXPERT_URL_FILE=FILE, or CHEXPERT_URL=LINK",
}
PHYSIONET_HOSTS: Final = ("physionet.org", "www.physionet.org")
KAGGLE_HOSTS: Final = ("www.kaggle.com", "api.kaggle.com")
BOX_HOSTS: Final = ("api.box.com",)
HUGGING_FACE_HOSTS: Final = ("huggingface.co",)
