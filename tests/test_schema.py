"""What /openapi.json promises is true: schemathesis, through nginx."""

from pathlib import Path

import pytest
from support.commands import ok
from support.serve import deployed

pytestmark = pytest.mark.slow


@pytest.fixture
def base_url(pair, own: Path, tmp_path: Path):
    """The URL of the emitted project behind nginx, with room for many requests."""
    if pair.framework == "flask":
        pytest.skip("has no schema")
    # All requests come from one address, which the site's rate limit is made to slow down.
    zones = own / "deploy/nginx/my-app/upstream.conf"
    zones.write_text(zones.read_text().replace("rate=10r/s", "rate=10000r/s"))
    (tmp_path / "nginx").mkdir()
    with deployed(own, tmp_path / "nginx") as site:
        yield f"http://127.0.0.1:{site.port}"


def test_schema_is_true(base_url, tmp_path):
    """For valid and invalid requests, and for methods and headers that it does not name."""
    # fmt: off
    report = ok(
        "schemathesis", "run", f"{base_url}/openapi.json", "--header=Host: example.com",
        "--checks=all", "--mode=all", "--max-examples=500", "--continue-on-failure",
        "--seed=1", "--request-timeout=10", "--no-color",
        cwd=tmp_path, timeout=100,
    )
    # fmt: on
    assert "Tested: 2" in report, report
