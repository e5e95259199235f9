"""What Uvicorn's workers lack: patience with requests that arrive while they stop."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker


class PatientProtocol(HttpToolsProtocol):
    """HTTP as Uvicorn speaks it, but slower to hang up."""

    def shutdown(self) -> None:
        """Wait for a request that has been sent, before an idle connection is closed."""
        self.loop.call_later(0.1, super().shutdown)


class Worker(UvicornWorker):
    """What Gunicorn starts for each CPU."""

    CONFIG_KWARGS = UvicornWorker.CONFIG_KWARGS | {
        "http": PatientProtocol,
        "server_header": False,  # nginx sets both
        "date_header": False,
    }
