"""deploy/doctor on a real server: it names each fault that is planted, and what mends it."""

import re
import shlex
import time
from typing import NamedTuple

import pytest
from support.online import domain
from support.project import PAIRS

pytestmark = pytest.mark.slow

SITE = PAIRS[0]  # where the faults are planted

# Stand-ins for commands that the machine does not have: each remembers that it was told
# to open the ports.
UFW = """
case "$1" in
  allow) touch /run/opened ;;
  status) printf 'Status: active\\nDefault: deny (incoming), allow (outgoing)\\n\\n'
    printf '22/tcp  ALLOW IN  Anywhere\\n'
    test ! -e /run/opened || printf '80,443/tcp  ALLOW IN  Anywhere\\n' ;;
esac
"""
FIREWALLD = """
case "$1" in
  --permanent) touch /run/opened ;;
  --list-services) test ! -e /run/opened && echo ssh || echo http https ssh ;;
esac
"""
NFT = """
case "$1" in
  insert) touch /run/opened ;;
  list) printf 'table inet filter {\\n\\tchain input {\\n'
    printf '\\t\\ttype filter hook input priority filter; policy drop;\\n'
    printf '\\t\\ttcp dport 22 accept\\n'
    test ! -e /run/opened || printf '\\t\\ttcp dport { 80, 443 } accept\\n'
    printf '\\t}\\n}\\n' ;;
esac
"""
IPTABLES = """
case "$1" in
  -I) touch /run/opened ;;
  -S) printf -- '-P INPUT DROP\\n-A INPUT -p tcp --dport 22 -j ACCEPT\\n'
    test ! -e /run/opened || printf -- '-A INPUT -p tcp --dports 80,443 -j ACCEPT\\n' ;;
esac
"""
AUSEARCH = "echo 'avc: denied { connectto } comm=nginx'"
NFT_OPEN = "nft insert rule inet filter input tcp dport '{ 80, 443 }' accept"


def stand_in(name: str, script: str) -> str:
    """A script that installs a stand-in for a command."""
    text = shlex.quote(f"#!/bin/sh\n{script}\n")
    return f"printf %s {text} > /usr/local/sbin/{name}; chmod +x /usr/local/sbin/{name}"


def remove(*names: str) -> str:
    paths = " ".join(f"/usr/local/sbin/{name}" for name in names)
    return f"rm -f /run/opened {paths}"


def certificate(name: str, days: int) -> str:
    """A script that puts a certificate of its own in the place of the site's."""
    return (
        f"cd /etc/letsencrypt/live/$SITE; mv fullchain.pem away.pem; "
        f"openssl req -x509 -key privkey.pem -days {days} -subj /CN=planted"
        f" -addext subjectAltName=DNS:{name} -out fullchain.pem"
    )


class Fault(NamedTuple):
    """Something that is wrong on the server.

    plant: what makes it wrong. wrong: a part of each line that is to say WRONG, the
    fault's own first. mend: a part of the command below that. first: what its reader
    does before typing that command; None if the command cannot be typed as it is, and
    `undo` mends. undo: puts everything back, mended or not.
    """

    name: str
    plant: str
    wrong: list[str]
    mend: str
    undo: str = "true"
    first: str | None = ""


KEEP_SETTINGS = "cp -a /etc/$SITE.env /etc/$SITE.away; "
BACK_SETTINGS = "mv -f /etc/$SITE.away /etc/$SITE.env; systemctl restart $SITE"
BACK_CERTIFICATE = (
    "cd /etc/letsencrypt/live/$SITE; test ! -L away.pem -a ! -e away.pem || mv -f away.pem"
    " fullchain.pem; ln -sf /etc/nginx/$SITE/https.conf /etc/nginx/conf.d/$SITE.conf;"
    " systemctl reload nginx"
)
NO_LONGER_BROKEN = "sed -i '/no_such_module/d' /opt/$SITE/app/routes.py"
NO_NGINX = [
    "http://$DOMAIN is not",
    "https://$DOMAIN is not",
    "nobody listens on port 443",
    "nobody listens on port 80",
]
RESOLVED = 'sed -i "/ $DOMAIN$/d" /etc/hosts; echo "127.0.0.1 $DOMAIN" >> /etc/hosts'

FAULTS = [
    Fault(
        "no-curl",
        "mv /usr/bin/curl /usr/bin/away",
        ["curl is not installed", "app does not answer", *NO_NGINX[:2]],
        "apt install --yes curl",
        "mv /usr/bin/away /usr/bin/curl",
        first=None,
    ),
    Fault(
        "interrupted-release",
        "touch /opt/$SITE.versions/switching",
        ["a release was interrupted"],
        "sudo ~/$SITE/deploy/release",
    ),
    Fault(
        "python-gone",
        "ln -sfn /usr/bin/python3.9 /opt/$SITE/.venv/bin/python3",
        [".venv/bin/python does not start"],
        "sudo ~/$SITE/deploy/release",
    ),
    Fault(
        "code-gone",
        "cp -P /opt/$SITE /opt/$SITE.away; ln -sfn /opt/$SITE.versions/gone /opt/$SITE",
        ["a link to /opt/$SITE.versions/gone, is not there"],
        "sudo ~/$SITE/deploy/release",
        "mv -fT /opt/$SITE.away /opt/$SITE",
        first=None,
    ),
    Fault(
        "settings-gone",
        KEEP_SETTINGS + "rm /etc/$SITE.env",
        ["/etc/$SITE.env is not there"],
        "install --mode=600 /dev/null",
        BACK_SETTINGS,
    ),
    Fault(
        "settings-open",
        "chmod 644 /etc/$SITE.env",
        ["can be read by others"],
        "chmod 600",
    ),
    Fault(
        "secret-short",
        KEEP_SETTINGS + "printf SECRET_KEY=short > /etc/$SITE.env",
        ["SECRET_KEY in /etc/$SITE.env is missing or too short"],
        "token_hex",
        BACK_SETTINGS,
    ),
    Fault(
        "secret-copied",
        KEEP_SETTINGS + "echo SECRET_KEY=changeme-changeme-changeme-changeme >> /etc/$SITE.env",
        ["SECRET_KEY in /etc/$SITE.env can be guessed"],
        "token_hex",
        BACK_SETTINGS,
    ),
    Fault(
        "setting-misspelt",
        KEEP_SETTINGS + "echo export COLOR=blue >> /etc/$SITE.env",
        ["line 2 of /etc/$SITE.env is not NAME=value"],
        "nano /etc/$SITE.env",
        BACK_SETTINGS,
        first=None,
    ),
    Fault(
        "setting-missing",
        KEEP_SETTINGS + "echo API_TOKEN= >> /opt/$SITE/.env.example",
        ["API_TOKEN of .env.example has no value"],
        "nano /etc/$SITE.env",
        BACK_SETTINGS + "; sed -i /API_TOKEN/d /opt/$SITE/.env.example",
        first=None,
    ),
    Fault(
        "in-development",
        KEEP_SETTINGS + "echo APP_ENV=development >> /etc/$SITE.env",
        ["sets APP_ENV"],
        "sed -i",
        BACK_SETTINGS,
    ),
    Fault(
        "unit-edited",
        "echo '# mine' >> /etc/systemd/system/$SITE.service",
        ["$SITE.service is not the same"],
        "daemon-reload",
    ),
    Fault(
        "unit-not-read",
        "mkdir -p /etc/systemd/system/$SITE.service.d;"
        " printf '[Service]\\nTasksMax=321\\n' > /etc/systemd/system/$SITE.service.d/own.conf",
        ["$SITE.service or its drop-in was edited"],
        "daemon-reload",
        "rm -r /etc/systemd/system/$SITE.service.d; systemctl daemon-reload",
    ),
    Fault(
        "app-stopped",
        "systemctl stop $SITE.socket",
        [
            "$SITE.socket is inactive",
            "$SITE.service is inactive",
            "app does not answer",
            "https://$DOMAIN is not this site here: 502",
        ],
        "enable --now",
    ),
    Fault(
        "app-broken",
        "echo 'import no_such_module' >> /opt/$SITE/app/routes.py;"
        " systemctl restart $SITE || true;"
        " until systemctl is-failed $SITE.socket; do sleep 1; done",
        [
            ": ModuleNotFoundError: No module named 'no_such_module'",
            "$SITE.socket is failed",
            "app does not answer",
            "https://$DOMAIN is not this site here: 502",
        ],
        "reset-failed",
        NO_LONGER_BROKEN,
        first=NO_LONGER_BROKEN,
    ),
    Fault(
        "app-not-at-boot",
        "systemctl disable $SITE.service",
        ["$SITE.service does not start at boot"],
        "systemctl enable $SITE.service",
    ),
    Fault(
        "socket-of-another",
        "chown nobody /run/$SITE.sock",
        ["is not for www-data", "https://$DOMAIN is not this site here: 502"],
        "SocketUser=www-data",
        "rm -rf /etc/systemd/system/$SITE.socket.d; systemctl daemon-reload;"
        " systemctl restart $SITE.socket; systemctl start $SITE",
    ),
    Fault(
        "folder-closed",
        "chmod 750 /opt/$SITE/app",
        ["nginx and the app may not enter"],
        "chmod o+rx",
    ),
    Fault(
        "file-closed",
        "chmod 600 /opt/$SITE/app/static/style.css",
        ["style.css, and maybe others"],
        "chmod --recursive o+rX",
    ),
    Fault(
        "nginx-stopped",
        "systemctl stop nginx",
        ["nginx is inactive", *NO_NGINX],
        "enable --now nginx",
    ),
    Fault(
        "nginx-not-at-boot",
        "systemctl disable nginx",
        ["nginx does not start at boot"],
        "systemctl enable nginx",
    ),
    Fault(
        "nginx-misspelt",
        "printf '\\nnonsense on;\\n' > /etc/nginx/$SITE.d/own.conf",
        ['unknown directive "nonsense"'],
        "nano +2 /etc/nginx/$SITE.d/own.conf",
        "rm /etc/nginx/$SITE.d/own.conf",
        first=None,
    ),
    Fault(
        "site-edited",
        "echo '# mine' >> /etc/nginx/$SITE/site.conf",
        ["/etc/nginx/$SITE/site.conf is not the same"],
        "cp -r",
    ),
    Fault(
        "site-off",
        "rm /etc/nginx/conf.d/$SITE.conf; systemctl reload nginx",
        ["conf.d/$SITE.conf is not there", "http://$DOMAIN is not this site"],
        "ln -sf /etc/nginx/$SITE/https.conf",
    ),
    Fault(
        "site-link-broken",
        "ln -sf /etc/nginx/$SITE/gone.conf /etc/nginx/conf.d/$SITE.conf",
        ["gone.conf, which is not there", "nginx cannot use its configuration"],
        "ln -sf /etc/nginx/$SITE/https.conf",
    ),
    Fault(
        "strangers-welcome",
        "rm /etc/nginx/conf.d/default.conf",
        ["conf.d/default.conf is not there"],
        "cp",
    ),
    Fault(
        "welcome-page",
        "ln -s /etc/nginx/sites-available/default /etc/nginx/sites-enabled/default",
        ["welcome page, is on", "duplicate default server"],
        "rm /etc/nginx/sites-enabled/default",
    ),
    Fault(
        "domain-taken",
        'echo "server { listen 80; server_name $DOMAIN; }" > /etc/nginx/sites-enabled/rival',
        ["sites-enabled/rival takes $DOMAIN too"],
        "mv /etc/nginx/sites-enabled/rival /root/",
        "rm -f /root/rival /etc/nginx/sites-enabled/rival",
    ),
    Fault(
        "domain-leads-elsewhere",
        'sed -i "s/^.* $DOMAIN$/192.0.2.7 $DOMAIN/" /etc/hosts',
        ["leads to 192.0.2.7 (record A)"],
        "let the record of $DOMAIN",
        RESOLVED,
        first=None,
    ),
    Fault(
        "old-record-for-ipv6",
        'echo "2001:db8::7 $DOMAIN" >> /etc/hosts',
        ["leads to 2001:db8::7 (record AAAA)"],
        "delete",
        RESOLVED,
        first=None,
    ),
    Fault(
        "domain-unknown",
        'sed -i "/ $DOMAIN$/d" /etc/hosts',
        ["$DOMAIN has no address"],
        "let the record of $DOMAIN",
        RESOLVED,
        first=None,
    ),
    Fault(
        "port-taken",
        "systemctl stop nginx; systemd-run --quiet --unit=taker python3 -m http.server 80;"
        " sleep 1",
        ["python3 holds port 80", "nginx is inactive", *NO_NGINX[:3]],
        "systemctl disable --now python3",
        "systemctl stop taker; systemctl start nginx",
        first=None,
    ),
    *(
        Fault(
            f"{name}-closed",
            stand_in(name, script),
            ["closes port 80", "closes port 443"],
            mend,
            remove(name),
        )
        for name, script, mend in (
            ("ufw", UFW, "ufw allow 80,443/tcp"),
            ("firewall-cmd", FIREWALLD, "firewall-cmd --permanent --add-service=http "),
            ("nft", NFT, NFT_OPEN),
            ("iptables", IPTABLES, "iptables -I INPUT -p tcp -m multiport --dports 80,443"),
        )
    ),
    Fault(
        "certificate-gone",
        "cd /etc/letsencrypt/live/$SITE; mv fullchain.pem away.pem",
        ["fullchain.pem is not there", "nginx cannot use its configuration"],
        "ln -sf /etc/nginx/$SITE/http.conf",
        BACK_CERTIFICATE,
    ),
    Fault(
        "certificate-ends",
        certificate("$DOMAIN", 10) + "; systemctl reload nginx",
        ["fullchain.pem ends in 10 days"],
        "certbot renew --cert-name $SITE",
        BACK_CERTIFICATE,
        first=None,
    ),
    Fault(
        "certificate-of-another",
        certificate("www.example.net", 90) + "; systemctl reload nginx",
        ["fullchain.pem is not for $DOMAIN"],
        "certbot certonly",
        BACK_CERTIFICATE,
        first=None,
    ),
    Fault(
        "certificate-not-shown",
        certificate("$DOMAIN", 90),
        ["nginx shows another certificate"],
        "systemctl reload-or-restart nginx",
        BACK_CERTIFICATE,
    ),
    Fault(
        "renewal-off",
        "systemctl stop certbot.timer",
        ["no timer of certbot"],
        "systemctl enable --now certbot.timer",
    ),
    Fault(
        "disk-full",
        "mount -t tmpfs -o size=1M full /tmp; head -c 1000000 /dev/zero > /tmp/full",
        ["the disk of /tmp is full"],
        "du -xh /tmp",
        "umount /tmp",
        first=None,
    ),
    Fault(
        "too-many-files",
        "mount -t tmpfs -o nr_inodes=40 full /tmp; touch /tmp/{1..38}",
        ["the disk of /tmp has no room for many more files"],
        "du --inodes -x /tmp",
        "umount /tmp",
        first=None,
    ),
    Fault(
        "memory-short",
        "printf 'MemTotal: 900000 kB\\nMemAvailable: 20000 kB\\n' > /run/meminfo;"
        " mount --bind /run/meminfo /proc/meminfo",
        ["only 19 MB of memory"],
        "swapon",
        "umount /proc/meminfo",
        first=None,
    ),
    Fault(
        "clock-slow",
        "touch --date='+2 days' /opt/$SITE/requirements.lock",
        ["the clock is slow"],
        "timedatectl set-ntp true",
        "touch --date=-1hour /opt/$SITE/requirements.lock",
        first=None,
    ),
    Fault(
        "clock-not-set",
        stand_in("systemd-detect-virt", "exit 1"),
        ["nothing sets the clock"],
        "systemd-timesyncd",
        remove("systemd-detect-virt"),
        first=None,
    ),
    Fault(
        "selinux-denies",
        f"{stand_in('getenforce', 'echo Enforcing')}; {stand_in('ausearch', AUSEARCH)}",
        ["SELinux stopped nginx"],
        "semodule -i $SITE-nginx.pp",
        remove("getenforce", "ausearch"),
        first=None,
    ),
]


def filled(text: str) -> str:
    return text.replace("$SITE", str(SITE)).replace("$DOMAIN", domain(SITE))


def diagnosis(online, path: str) -> tuple[int, dict[str, str]]:
    """The doctor's exit status, and what it calls WRONG, each with what mends it."""
    done = online.machine.run(path)
    assert "Traceback" not in done.stdout, done.stdout
    found = re.findall(r"^WRONG  (.+)\n {7}mend: (.+)$", done.stdout, re.MULTILINE)
    assert len(found) == done.stdout.count("WRONG"), done.stdout
    return done.returncode, dict(found)


def named(lines: dict[str, str], parts: list[str]) -> bool:
    """Whether each part is in one line, and no line is left over."""
    matches = [[line for line in lines if filled(part) in line] for part in parts]
    return all(len(found) == 1 for found in matches) and len(lines) == len(parts)


def healthy(online) -> None:
    """Wait until nothing is wrong: a reload of nginx takes a moment."""
    end = time.monotonic() + 20
    while (seen := diagnosis(online, f"/opt/{SITE}/deploy/doctor")) != (0, {}):
        assert time.monotonic() < end, seen
        time.sleep(0.5)


def test_nothing_is_wrong_with_a_site_that_the_readme_put_online(online, pair):
    done = online.machine.run(f"/opt/{pair}/deploy/doctor")
    assert done.returncode == 0, done.stdout
    assert "WRONG" not in done.stdout
    assert done.stdout.count("\nok ") > 15
    assert f"Nothing is wrong with {domain(pair)}." in done.stdout


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_named_alone_and_its_command_mends_it(online, fault):
    machine = online.machine
    # By its folder, because a fault may be that the link is broken.
    doctor = machine.ok(f"readlink -f /opt/{SITE}").strip() + "/deploy/doctor"
    try:
        machine.ok(filled(fault.plant))
        end = time.monotonic() + 20
        status, lines = diagnosis(online, doctor)
        while not named(lines, fault.wrong) and time.monotonic() < end:
            time.sleep(0.5)
            status, lines = diagnosis(online, doctor)
        assert named(lines, fault.wrong), lines
        assert status == 1
        [line] = [line for line in lines if filled(fault.wrong[0]) in line]
        assert filled(fault.mend) in lines[line]
        if fault.first is not None:
            machine.ok(filled(fault.first or "true"))
            machine.ok(lines[line])
            healthy(online)
    finally:
        machine.run(filled(fault.undo))
    healthy(online)


@pytest.mark.usefixtures("by_script")
def test_doctor_changes_nothing(online):
    """Compares each file's checksum and times; nginx is tested by `nginx -t` alone."""
    listing = (
        "find /etc /opt /run/systemd/system -printf '%p %T@ %C@ %m %u %l\\n' | sort;"
        " find /etc /opt -xdev -type f -exec sha256sum {} + | sort;"
        f" systemctl show -P InvocationID -P NRestarts {SITE} {SITE}.socket nginx"
    )
    before = online.machine.ok(listing)
    online.machine.ok(f"/opt/{SITE}/deploy/doctor")
    assert online.machine.ok(listing) == before


@pytest.mark.usefixtures("by_script")
def test_doctor_asks_for_sudo(online):
    done = online.machine.run(f"setpriv --reuid=nobody /opt/{SITE}/deploy/doctor")
    assert done.returncode == 1
    assert done.stdout.strip().endswith("sudo deploy/doctor")


@pytest.mark.usefixtures("by_script")
def test_doctor_looks_from_any_copy_and_names_that_one_to_release_from(online):
    """A copy elsewhere can be released from; what stands in /opt cannot."""
    machine = online.machine
    machine.ok(f"cp -r /opt/{SITE}/ /srv/copy; touch /opt/{SITE}.versions/switching")
    try:
        _, lines = diagnosis(online, "/srv/copy/deploy/doctor")
    finally:
        machine.ok(f"rm -r /srv/copy /opt/{SITE}.versions/switching")
    assert list(lines.values()) == ["sudo /srv/copy/deploy/release"]
