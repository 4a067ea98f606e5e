"""AWS authentication: the provider's own chain of credentials, endpoints of buckets, and signed requests.

botocore finds the credentials (environment, profiles, single sign-on, roles of containers and machines), knows the
endpoint of each region and access point, and signs. It sends no request for a listing or for bytes: those go over the
common client, as signed headers for the one host that they were signed for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cxrprep.credentials.services import ADVICE
from cxrprep.errors import AccessError, UsageError
from cxrprep.sources.trust import ca_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.credentials.lookup import Credentials


class AwsAccess:
    """What AWS's own tools would use for ``bucket``, looked for once. Safe to use from many threads."""

    def __init__(self, bucket: str, credentials: Credentials | None) -> None:
        """Nothing is imported or looked up yet. ``bucket`` is a name, or the ARN of an access point."""
        self._bucket = bucket
        self._credentials = credentials
        self._lock = threading.Lock()
        self._session: Any = None
        self._found: Any = None
        self._base = ""
        self._region = ""
        self.is_unsigned = False

    @property
    def is_anonymous(self) -> bool:
        """Whether there are no credentials, or none are used. Raises ``AccessError`` for some that are broken."""
        self._find()
        return self.is_unsigned or self._found is None

    @property
    def origin(self) -> str:
        """Where the credentials come from, in AWS's words, such as ``shared-credentials-file``; ``""`` without any."""
        self._find()
        return str(getattr(self._found, "method", "") or "")

    @property
    def base(self) -> str:
        """The address of the bucket, with a slash at its end: keys follow. Raises ``UsageError``, ``AccessError``."""
        self._find()
        return self._base

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        self._find()
        return self._region

    def move(self, region: str) -> bool:
        """Use the bucket's own ``region`` from here on; whether that is another one than before."""
        self._find()
        with self._lock:
            if region == self._region:
                return False
            self._place(region)
            return True

    def headers(self, url: str, more: Mapping[str, str]) -> Mapping[str, str]:
        """``more`` with what signs a GET of ``url`` (Signature Version 4); ``more`` alone without credentials.

        Raises ``AccessError`` for credentials that cannot be renewed.
        """
        if self.is_anonymous:
            return more
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        try:
            have = self._found.get_frozen_credentials()
        except BotoCoreError as error:
            raise _unusable(error) from None
        request = AWSRequest("GET", url, headers=dict(more))
        S3SigV4Auth(have, "s3", self._region).add_auth(request)
        return dict(request.headers.items())

    # ---- inside ----

    def _find(self) -> None:
        with self._lock:
            if self._session is None:
                self._open()

    def _open(self) -> None:
        import botocore.session
        from botocore.exceptions import BotoCoreError

        session = botocore.session.Session()
        try:
            # What it asks for tokens of roles trusts whom everything here trusts.
            session.set_config_variable("ca_bundle", ca_bundle())
            keys = self._credentials.aws() if self._credentials is not None else None
            if keys is not None:
                session.set_credentials(*(None if part is None else part.reveal() for part in keys))
            self._found = session.get_credentials()
            region = str(session.get_config_variable("region") or "")
        except BotoCoreError as error:
            raise _unusable(error) from None
        self._session = session
        try:
            self._place(region)
        except BaseException:
            self._session = None
            raise

    def _place(self, region: str) -> None:
        """Find the bucket's address in ``region``, or at the endpoint that the user's settings name. Hold the lock."""
        from botocore.exceptions import BotoCoreError

        if self._bucket.startswith("arn:"):
            region = self._bucket.split(":")[3]
        try:
            client = self._client(region, {})
            if region and client.meta.endpoint_url.endswith(".amazonaws.com") and "." not in self._bucket:
                # Otherwise the library writes the address for all regions, which the newer ones are not behind.
                client = self._client(region, {"addressing_style": "virtual"})
            address = client.generate_presigned_url("get_object", {"Bucket": self._bucket, "Key": "k"})
        except (BotoCoreError, ValueError) as error:
            raise UsageError(
                f"s3://{self._bucket} has no address: {type(error).__name__}",
                hint="check the name of the bucket, AWS_REGION and AWS_ENDPOINT_URL",
            ) from None
        self._base = address.removesuffix("k")
        self._region = region or "us-east-1"

    def _client(self, region: str, style: Mapping[str, str]) -> Any:
        import botocore
        from botocore.config import Config

        config = Config(signature_version=botocore.UNSIGNED, s3=style or None)
        return self._session.create_client("s3", region_name=region or None, config=config)


def _unusable(error: Exception) -> AccessError:
    # The library's own text may quote what a helper program printed.
    return AccessError(
        f"the AWS login found here cannot be used ({type(error).__name__})", hint=f"sign in again; {ADVICE['aws']}"
    )
