"""gcp-storage-emulator with what TensorStore needs of Google's storage besides.

The emulator neither tells an object's generation with its content nor heeds a request
that is for one generation alone: TensorStore's writers find out so that another one
has written a database's manifest. Nor does it refuse anything: here a bucket with an
object `.read-only` takes no writes, and one with `.private` answers nobody.
"""

import re
from http import HTTPStatus

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_download, _insert = objects.download, objects.insert


def _generation(storage, bucket: str, name: str) -> str:
    """That of an object; "0" where there is none."""
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def _refused(request, response, now: str) -> bool:
    only, other = (
        request.query.get(f"ifGeneration{kind}", [None])[0]
        for kind in ("Match", "NotMatch")
    )
    if only is not None and only != now:
        response.status = HTTPStatus.PRECONDITION_FAILED
    elif other is not None and other == now:
        response.status = HTTPStatus.NOT_MODIFIED
    else:
        return False
    return True


def download(request, response, storage, *args, **kwargs):
    bucket, name = request.params["bucket_name"], request.params["object_id"]
    now = _generation(storage, bucket, name)
    if now == "0" or not _refused(request, response, now):
        response["x-goog-generation"] = now
        _download(request, response, storage, *args, **kwargs)


def insert(request, response, storage, *args, **kwargs):
    bucket, name = request.params["bucket_name"], request.query.get("name", [""])[0]
    if not _refused(request, response, _generation(storage, bucket, name)):
        _insert(request, response, storage, *args, **kwargs)


class Router(server.Router):
    def handle(self, method):
        asked = self._request_handler
        bucket = re.search(r"/b/([^/?]+)", asked.path)
        if bucket and _generation(asked.storage, bucket[1], ".private") != "0":
            self._refuse(401, "Anonymous caller does not have storage.objects access")
        elif (
            bucket
            and method != server.GET
            and _generation(asked.storage, bucket[1], ".read-only") != "0"
        ):
            self._refuse(403, "me@project does not have storage.objects.create access")
        else:
            super().handle(method)

    def _refuse(self, code, message):
        length = int(self._request_handler.headers.get("content-length", 0))
        self._request_handler.rfile.read(length)
        response = server.Response(self._request_handler)
        response.status = HTTPStatus(code)
        response.json({"error": {"code": code, "message": message}})
        response.close()


objects.download, objects.insert = download, insert
server.Router = Router

if __name__ == "__main__":
    from gcp_storage_emulator.__main__ import main  # late: it takes the two from there

    main()
