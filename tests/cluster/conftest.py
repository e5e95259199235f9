"""Fixtures for the tests on Kubernetes; see README.md."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Cluster, Site, bring_online, emit_for_cluster
from support.project import Pair


@pytest.fixture(scope="session")
def cluster(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with visitors."""
    if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":
        pytest.fail("the tests share one cluster: add -n1", pytrace=False)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start_visitors()
    yield cluster
    cluster.stop_visitors()


@pytest.fixture(scope="session")
def site(
    pair: Pair, cluster: Cluster, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The site of a pair on the cluster, with two pods."""
    path = tmp_path_factory.mktemp("projects") / f"{pair}"
    site = bring_online(cluster, emit_for_cluster(template, path, pair, "none"))
    yield site
    site.delete()
