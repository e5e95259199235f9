"""Sites on a real Kubernetes: no request is lost in what a cluster does every day."""

import pytest

pytestmark = pytest.mark.cluster


def test_rollout_loses_no_request(site):
    with site.loaded("rollout") as load:
        site.release_version("2")
        assert site.version() == "2"
    assert load.result.failed == []
