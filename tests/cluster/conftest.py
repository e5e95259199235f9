"""Fixtures for the tests on Kubernetes; see README.md."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import nodes
from support.cluster import (
    Cluster,
    Site,
    bring_online,
    emit_for_cluster,
    load_postgres,
    make_volume,
    prepare,
)
from support.database import Cluster as PostgreSQL
from support.project import Pair


@pytest.fixture(scope="session")
def cluster(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with visitors."""
    if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":
        pytest.fail("the tests share one cluster: add -n0", pytrace=False)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start_visitors()
    yield cluster
    cluster.stop_visitors()


@pytest.fixture
def own_cluster(cluster: Cluster) -> Cluster:
    """The cluster that these tests have made, because they need what kubectl cannot do."""
    if not cluster.own:
        pytest.skip("needs the cluster of tests/cluster/up: unset KUBECONFIG")
    return cluster


@pytest.fixture(scope="session")
def site(pair: Pair, cluster: Cluster, template, tmp_path_factory) -> Iterator[Site]:
    """The site of a pair on the cluster, with two pods."""
    path = tmp_path_factory.mktemp("projects") / f"{pair}"
    site = bring_online(cluster, emit_for_cluster(template, path, pair))
    yield site
    site.delete()


@pytest.fixture
def new_site(pair: Pair, cluster: Cluster, template, tmp_path: Path) -> Iterator[Site]:
    """A site that was never released, with its secret on the cluster."""
    site = prepare(cluster, emit_for_cluster(template, tmp_path / f"new-{pair}", pair))
    yield site
    site.delete()


@pytest.fixture(scope="session")
def postgresql(cluster: Cluster) -> Iterator[str]:
    """The URL of a database in a PostgreSQL next to the nodes."""
    if not cluster.own:
        pytest.skip("needs PostgreSQL in the network of the cluster of tests/cluster/up")
    server = PostgreSQL(nodes.inside("database"), nodes.DATABASE)
    server.query("CREATE ROLE app LOGIN PASSWORD 'secret'", "CREATE DATABASE app OWNER app")
    yield f"postgresql://app:secret@{nodes.DATABASE}:{server.port}/app"
    server.stop()


@pytest.fixture(scope="session")
def data_site(cluster: Cluster, postgresql: str, template, tmp_path_factory) -> Iterator[Site]:
    """A site with a database."""
    path = tmp_path_factory.mktemp("projects") / "guests"
    project = emit_for_cluster(template, path, Pair("fastapi", "uvicorn"), "postgresql")
    site = bring_online(cluster, project, DATABASE_URL=postgresql)
    yield site
    site.delete()


@pytest.fixture
def backups(cluster: Cluster, data_site: Site, tmp_path: Path) -> Path:
    """A directory with the backups of the site with a database."""
    load_postgres(cluster)
    path = tmp_path / "backups"
    path.mkdir()
    make_volume(data_site, path)
    return path
