"""What a service can do from inside its sandbox: appended to app/routes.py."""

import multiprocessing
import os
import pathlib
import socket
import ssl
import subprocess

STATE = os.environ.get("STATE_DIRECTORY", "/tmp")
NAME = os.path.basename(STATE)


def outcome(action) -> str:
    """Return what an attempt returns, or the name of the error that it raises."""
    try:
        return str(action())
    except (OSError, ValueError) as error:
        return type(error).__name__


def write(folder: str) -> str:
    with open(f"{folder}/sandbox-file", "w") as file:
        file.write("x")
    os.unlink(file.name)
    return "open"


def execute(folder: str) -> str:
    """Write a program, then run it."""
    program = f"{folder}/sandbox-program"
    with open(program, "w") as file:
        file.write("#!/bin/sh\n")
    try:
        os.chmod(program, 0o700)
        return subprocess.run([program], check=False).returncode
    finally:
        os.unlink(program)


def connect(family, address) -> str:
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)
    return "open"


def listen() -> str:
    with socket.create_server(("127.0.0.1", 0)):
        return "open"


def send_datagram() -> str:
    """As a library that queries a name server does."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(("", 0))
        client.sendto(b"x", ("127.0.0.1", 53))
    return "open"


def multicast() -> str:
    """Through the loopback device: the machine may have no other."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        loopback = socket.inet_aton("127.0.0.1")
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        client.sendto(b"x", ("239.255.255.250", 9))
    return "open"


def foreign_processes() -> int:
    """Count the processes of other users."""
    numbers = [name for name in os.listdir("/proc") if name.isdecimal()]
    return sum(os.stat(f"/proc/{name}").st_uid != os.getuid() for name in numbers)


def run_command(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True)
    return "denied" if done.returncode else "open"


def certificates() -> str:
    return "open" if ssl.create_default_context().get_ca_certs() else "none"


def attempts(other: str) -> dict[str, str]:
    """Try everything, and return each outcome. other: the name of another site."""
    actions = {
        "directories in /opt": lambda: [n for n in sorted(os.listdir("/opt")) if n != NAME],
        "code of another site": lambda: os.listdir(f"/opt/{other}/app"),
        "settings of another site": lambda: pathlib.Path(f"/etc/{other}.env").read_text(),
        "own file of settings": lambda: pathlib.Path(f"/etc/{NAME}.env").read_text(),
        "data of another site": lambda: os.listdir(f"/var/lib/{other}/"),
        "socket of another site": lambda: connect(socket.AF_UNIX, f"/run/{other}.sock"),
        "/srv": lambda: os.listdir("/srv"),
        "/var/log": lambda: os.listdir("/var/log"),
        "/var/www": lambda: os.listdir("/var/www"),
        "/var/backups": lambda: os.listdir("/var/backups"),
        "/etc/nginx": lambda: os.listdir("/etc/nginx"),
        "/etc/systemd": lambda: os.listdir("/etc/systemd"),
        "/root": lambda: os.listdir("/root"),
        "other users' processes": foreign_processes,
        "write its own code": lambda: write(f"/opt/{NAME}/app"),
        "write /etc": lambda: write("/etc"),
        "write /usr": lambda: write("/usr/bin"),
        "execute from the state directory": lambda: execute(STATE),
        "execute from /tmp": lambda: execute("/tmp"),
        "execute from /var/tmp": lambda: execute("/var/tmp"),
        "execute from /dev/shm": lambda: execute("/dev/shm"),
        "mount": lambda: run_command("mount", "-t", "tmpfs", "tmpfs", "/tmp"),
        "namespaces": lambda: run_command("unshare", "--user", "--mount", "true"),
        "listen on TCP": listen,
        "multicast": multicast,
        "write the state directory": lambda: write(STATE),
        "write /tmp": lambda: write("/tmp"),
        "shared memory": lambda: "open" if multiprocessing.Lock() else "",
        "commands of the system": lambda: run_command("env", "true"),
        "names of hosts": lambda: "open" if socket.getaddrinfo("machine", 80) else "",
        "queries to name servers": send_datagram,
        "certificates": certificates,
        "databases on TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", 443)),
        "databases on a local socket": lambda: connect(socket.AF_UNIX, "/run/db/db.sock"),
    }
    return {name: outcome(action) for name, action in actions.items()}
