"""What Uvicorn lacks: patience with requests that arrive while it stops."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PatientProtocol(HttpToolsProtocol):
    """HTTP as Uvicorn speaks it, but slower to hang up."""

    def shutdown(self) -> None:
        """Wait for a request that has been sent, before an idle connection is closed."""
        self.loop.call_later(0.1, super().shutdown)
