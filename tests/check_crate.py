"""Validates an RO-Crate by roc-validator, in its own environment and without a network.

`python check_crate.py CRATE CONTEXT` prints a line for each rule that is broken, a recommendation
too. The validator looks up the terms of RO-Crate at their address. Here the file CONTEXT, of the
package rocrate, is put into its cache for that.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from rocrate_validator.models import Severity
from rocrate_validator.services import ValidationSettings, validate
from urllib3 import HTTPResponse

ADDRESS = "https://w3id.org/ro/crate/1.3/context"


class File(HTTPAdapter):
    """Answers every request with the content of a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def send(self, request, **_):
        content, kind = BytesIO(self.path.read_bytes()), {"Content-Type": "application/ld+json"}
        options = {"preload_content": False, "request_url": request.url}
        return self.build_response(request, HTTPResponse(content, kind, 200, **options))


crate, context = map(Path, sys.argv[1:])
with tempfile.TemporaryDirectory() as folder:
    cache = f"{folder}/cache"
    with CachedSession(cache) as session:
        session.mount(ADDRESS, File(context))
        session.get(ADDRESS).raise_for_status()
    settings = ValidationSettings(
        rocrate_uri=crate,
        requirement_severity=Severity.RECOMMENDED,
        offline=True,
        cache_path=cache,
    )
    for issue in validate(settings).get_issues():
        print(f"{issue.severity.name} {issue.check.identifier}: {issue.message}")
