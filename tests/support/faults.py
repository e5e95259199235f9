"""Problems to plant on a server, and what deploy/doctor is expected to say about them.

$SITE is the name of the site that is looked at, $DOMAIN its domain.
"""

import shlex
from typing import NamedTuple


class Fault(NamedTuple):
    """Something that is wrong.

    plant: a script that makes it wrong. fails: a part of each line with FAIL, the fault's
    own first. fix: a part of the command below that one. first: what the reader does
    before typing that command; None if the command cannot be run as it is printed. undo: a
    script that restores everything, fixed or not.
    """

    name: str
    plant: str
    fails: list[str]
    fix: str
    undo: str = "true"
    first: str | None = ""


class Harmless(NamedTuple):
    """Something that may be as it should: no FAIL, and a note if `note` is a text."""

    name: str
    plant: str
    note: str | None
    undo: str


def fake(command: str, script: str) -> str:
    """A script that installs a stand-in for a command that the machine does not have."""
    text = shlex.quote(f"#!/bin/sh\n{script}\n")
    path = f"/usr/local/sbin/{command}"
    return f"printf %s {text} > {path}; chmod +x {path}"


def ruleset(rule: str) -> str:
    return fake("nft", f"echo 'chain input {{ type filter hook input; policy drop; {rule} }}'")


def certificate(name: str, days: int) -> str:
    """A script that writes another certificate into the site's own files.

    days: how many it has left, of 90.
    """
    return (
        "rm -rf /root/letsencrypt; cp -a /etc/letsencrypt /root/;"
        f" cd /etc/letsencrypt/live/$SITE; openssl req -x509 -key privkey.pem -subj /CN=planted"
        f" -not_before {utc(days - 90)} -not_after {utc(days)}"
        f" -addext subjectAltName=DNS:{name} -out /root/planted.pem;"
        " cat /root/planted.pem | tee $(readlink -f cert.pem) > $(readlink -f fullchain.pem)"
    )


def utc(days: int) -> str:
    return f"$(date --utc --date='{days} days' +%Y%m%d%H%M%SZ)"


RESTORE_CERTIFICATE = (
    "rm -r /etc/letsencrypt; cp -a /root/letsencrypt /etc/; systemctl reload nginx"
)
KEEP_SETTINGS = "cp -a /etc/$SITE.env /root/settings; "
RESTORE_SETTINGS = "cp -a /root/settings /etc/$SITE.env; systemctl restart $SITE"
RESTORE_HOSTS = 'sed -i "/ $DOMAIN$/d" /etc/hosts; echo "127.0.0.1 $DOMAIN" >> /etc/hosts'
RESTORE_SOCKET = (
    "rm -rf /etc/systemd/system/$SITE.socket.d; systemctl daemon-reload;"
    " systemctl restart $SITE.socket; systemctl start $SITE"
)
RESTORE_ROUTES = "sed -i '/no_such_module/d' /opt/$SITE/app/routes.py"
RESTORE_HOME = "cp -a /root/home.html /opt/$SITE/app/templates/; systemctl restart $SITE"
# With the script, because systemd limits how often the unit starts.
ONLY_BACKUP = "cd /var/backups/$SITE; rm -f *.gz; /opt/$SITE/deploy/backup; "
REPAIR_BACKUP = "rm -rf /etc/systemd/system/$SITE-backup.service.d; systemctl daemon-reload"
APP_DOWN = [
    "/run/$SITE.sock: the health check fails",
    "https://$DOMAIN: the health check fails: 502",
]
NGINX_DOWN = [
    "http://$DOMAIN: the health check fails",
    "https://$DOMAIN: the health check fails",
]

FAULTS = [
    Fault(
        "no-curl",
        "mv /usr/bin/curl /usr/bin/away",
        ["curl is not installed"],
        "sudo apt install --yes curl",
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
        ["the app's Python does not start"],
        "sudo ~/$SITE/deploy/release",
    ),
    Fault(
        "code-gone",
        "cp -P /opt/$SITE /opt/$SITE.away; ln -sfn /opt/$SITE.versions/gone /opt/$SITE",
        [
            "/opt/$SITE.versions/gone does not exist",
            "deploy/nginx/$SITE: No such file",
            "deploy/$SITE.service: No such file",
            "deploy/$SITE.socket: No such file",
            "deploy/$SITE-backup.timer: No such file",
            "deploy/$SITE-backup.service: No such file",
        ],
        "sudo ~/$SITE/deploy/release",
        "mv -fT /opt/$SITE.away /opt/$SITE",
        first=None,
    ),
    Fault(
        "directory-closed",
        "chmod 750 /opt/$SITE/app/static",
        ["nginx or the app may not read"],
        "chmod -R o+rX",
    ),
    Fault(
        "file-closed",
        "chmod 600 /opt/$SITE/app/static/style.css",
        ["may not read /opt/$SITE/app/static/style.css"],
        "chmod -R o+rX",
    ),
    Fault(
        "settings-gone",
        KEEP_SETTINGS + "rm /etc/$SITE.env",
        ["SECRET_KEY is missing"],
        "umask 077",
        RESTORE_SETTINGS,
    ),
    Fault(
        "settings-open",
        "chmod 644 /etc/$SITE.env",
        ["other users than root can read"],
        "chmod 600",
    ),
    Fault(
        "secret-short",
        KEEP_SETTINGS + "printf SECRET_KEY=short > /etc/$SITE.env",
        ["SECRET_KEY is missing or easy to guess"],
        "openssl rand",
        RESTORE_SETTINGS,
    ),
    Fault(
        "secret-copied",
        KEEP_SETTINGS + "echo SECRET_KEY=changeme-changeme-changeme-changeme >> /etc/$SITE.env",
        ["SECRET_KEY is missing or easy to guess"],
        "openssl rand",
        RESTORE_SETTINGS,
    ),
    Fault(
        "setting-misspelt",
        KEEP_SETTINGS + "echo export COLOR=blue >> /etc/$SITE.env",
        ["has a line that is not NAME=value"],
        "nano /etc/$SITE.env",
        RESTORE_SETTINGS,
        first=None,
    ),
    Fault(
        "in-development",
        KEEP_SETTINGS + "echo APP_ENV=development >> /etc/$SITE.env",
        ["sets APP_ENV"],
        "nano /etc/$SITE.env",
        RESTORE_SETTINGS,
        first=None,
    ),
    Fault(
        "unit-edited",
        "echo '# mine' >> /etc/systemd/system/$SITE.service",
        ["/etc/systemd/system/$SITE.service differ"],
        "daemon-reload",
    ),
    Fault(
        "unit-not-read",
        "mkdir -p /etc/systemd/system/$SITE.service.d;"
        " printf '[Service]\\nTasksMax=321\\n' > /etc/systemd/system/$SITE.service.d/own.conf",
        ["$SITE.service or a drop-in was edited"],
        "daemon-reload",
        "rm -r /etc/systemd/system/$SITE.service.d; systemctl daemon-reload",
    ),
    Fault(
        "app-stopped",
        "systemctl stop $SITE.socket",
        ["$SITE.socket is inactive", "$SITE.service is inactive", *APP_DOWN],
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
            *APP_DOWN,
        ],
        "reset-failed",
        RESTORE_ROUTES,
        first=RESTORE_ROUTES,
    ),
    Fault(
        "backup-unit-edited",
        "echo '# mine' >> /etc/systemd/system/$SITE-backup.service",
        ["/etc/systemd/system/$SITE-backup.service differ"],
        "daemon-reload",
    ),
    Fault(
        "backup-not-scheduled",
        "systemctl stop $SITE-backup.timer",
        ["$SITE-backup.timer is inactive"],
        "enable --now",
    ),
    Fault(
        "backup-not-scheduled-at-boot",
        "systemctl disable $SITE-backup.timer",
        ["$SITE-backup.timer does not start at boot"],
        "enable --now",
    ),
    Fault(
        "backup-failed",
        "mkdir -p /etc/systemd/system/$SITE-backup.service.d;"
        " printf '[Service]\\nExecStartPre=/bin/false\\n'"
        " > /etc/systemd/system/$SITE-backup.service.d/own.conf;"
        " systemctl daemon-reload; ! systemctl start $SITE-backup",
        ["$SITE-backup.service is failed"],
        "systemctl start $SITE-backup.service",
        REPAIR_BACKUP,
        first=REPAIR_BACKUP,
    ),
    Fault(
        "backup-old",
        ONLY_BACKUP + "mv *.gz $SITE-20260101-030000-daily.tar.gz",
        ["the newest backup is older than two days"],
        "systemctl start $SITE-backup.service",
    ),
    Fault(
        "backup-damaged",
        ONLY_BACKUP + "truncate --size=-9 *.gz",
        ["the newest backup cannot be restored"],
        "systemctl start $SITE-backup.service",
        ONLY_BACKUP,
        first="sleep 1",  # its name has the second
    ),
    Fault(
        "interrupted-restore",
        ONLY_BACKUP + "printf $SITE.20260101-000000 > .restoring",
        ["a restore was interrupted"],
        "systemctl start $SITE-backup.service",
        "rm -f /var/backups/$SITE/.restoring",
    ),
    Fault(
        "backup-gone",
        "rm -f /var/backups/$SITE/*.gz; touch -h -d '3 days ago' /opt/$SITE",
        ["there is no backup in /var/backups/$SITE yet"],
        "systemctl start $SITE-backup.service",
        "touch -h /opt/$SITE",
    ),
    Fault(
        "app-not-at-boot",
        "systemctl disable $SITE.service",
        ["$SITE.service does not start at boot"],
        "systemctl enable",
    ),
    Fault(
        "first-page-broken",
        "cp -a /opt/$SITE/app/templates/home.html /root/;"
        " echo '{{ 1 // 0 }}' > /opt/$SITE/app/templates/home.html; systemctl restart $SITE",
        [
            "/run/$SITE.sock: the first page fails: 500",
            "https://$DOMAIN: the first page fails: 500",
        ],
        "sudo journalctl -u $SITE -n 50",
        RESTORE_HOME,
        first=RESTORE_HOME,
    ),
    Fault(
        "socket-of-another",
        "chown nobody /run/$SITE.sock",
        ["www-data, who may not use /run/$SITE.sock", APP_DOWN[1]],
        "deploy/system.py",
        RESTORE_SOCKET,
    ),
    Fault(
        "socket-of-another-by-a-drop-in",
        "mkdir -p /etc/systemd/system/$SITE.socket.d;"
        " printf '[Socket]\\nSocketUser=nobody\\n' > /etc/systemd/system/$SITE.socket.d/old.conf;"
        " systemctl daemon-reload; chown nobody /run/$SITE.sock",
        ["www-data, who may not use /run/$SITE.sock", APP_DOWN[1]],
        "sudo sed -i /^SocketUser=/d /etc/systemd/system/$SITE.socket.d/old.conf && ",
        RESTORE_SOCKET,
    ),
    Fault(
        "nginx-stopped",
        "systemctl stop nginx",
        ["nginx is inactive", *NGINX_DOWN],
        "enable --now",
    ),
    Fault(
        "nginx-not-at-boot",
        "systemctl disable nginx",
        ["nginx does not start at boot"],
        "systemctl enable",
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
        "port-taken",
        "systemctl stop nginx; systemd-run --quiet --unit=taker python3 -m http.server 80;"
        " sleep 1",
        ["nginx is inactive", *NGINX_DOWN],
        "sudo systemctl enable --now",
        "systemctl stop taker || true; systemctl start nginx",
        first="systemctl stop taker",
    ),
    Fault(
        "site-edited",
        "echo '# mine' >> /etc/nginx/$SITE/site.conf",
        ["/etc/nginx/$SITE/site.conf differ"],
        "cp -r",
    ),
    Fault(
        "site-off",
        "rm /etc/nginx/conf.d/$SITE.conf; systemctl reload nginx",
        ["conf.d/$SITE.conf does not exist", NGINX_DOWN[0]],
        "ln -sf /etc/nginx/$SITE/https.conf",
    ),
    Fault(
        "site-link-broken",
        "ln -sf /etc/nginx/$SITE/gone.conf /etc/nginx/conf.d/$SITE.conf",
        ["or links to nothing", "nginx does not accept this: open()"],
        "ln -sf /etc/nginx/$SITE/https.conf",
    ),
    Fault(
        "no-default-server",
        "rm /etc/nginx/conf.d/default.conf",
        ["conf.d/default.conf is missing"],
        "cp",
    ),
    Fault(
        "few-connections",
        "sed -i 's/worker_connections 8192/worker_connections 768/' /etc/nginx/nginx.conf;"
        " systemctl reload nginx",
        ["nginx has only 768 connections"],
        "/etc/nginx/nginx.conf",
    ),
    Fault(
        "welcome-page",
        "ln -s /etc/nginx/sites-available/default /etc/nginx/sites-enabled/default",
        ["duplicate default server"],
        "mv /etc/nginx/sites-enabled/default /root/",
        "rm -f /root/default /etc/nginx/sites-enabled/default",
    ),
    Fault(
        "domain-taken",
        'echo "server { listen 80; server_name $DOMAIN; }" > /etc/nginx/sites-enabled/rival',
        ["sites-enabled/rival takes $DOMAIN"],
        "mv /etc/nginx/sites-enabled/rival /root/",
        "rm -f /root/rival /etc/nginx/sites-enabled/rival",
    ),
    Fault(
        "domain-leads-elsewhere",
        fake("hostname", "echo 10.9.8.7 9.9.9.9")
        + '; sed -i "s/^.* $DOMAIN$/192.0.2.7 $DOMAIN/" /etc/hosts',
        ["$DOMAIN resolves to 192.0.2.7, not here"],
        "point $DOMAIN only to 9.9.9.9",
        RESTORE_HOSTS + "; rm /usr/local/sbin/hostname",
        first=None,
    ),
    Fault(
        "old-record-for-ipv6",
        'echo "2001:db8::7 $DOMAIN" >> /etc/hosts',
        ["$DOMAIN resolves to 2001:db8::7, not here"],
        "point $DOMAIN only to this server",
        RESTORE_HOSTS,
        first=None,
    ),
    Fault(
        "domain-unknown",
        'sed -i "/ $DOMAIN$/d" /etc/hosts; cp /etc/nsswitch.conf /root/;'
        " sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf",
        ["$DOMAIN does not resolve"],
        "point $DOMAIN only to",
        RESTORE_HOSTS + "; cp /root/nsswitch.conf /etc/",
        first=None,
    ),
    Fault(
        "resolver-down",
        'sed -i "/ $DOMAIN$/d" /etc/hosts',
        ["$DOMAIN does not resolve: Temporary failure"],
        "cat /etc/resolv.conf",
        RESTORE_HOSTS,
        first=None,
    ),
    Fault(
        "certificate-gone",
        "cd /etc/letsencrypt/live/$SITE; mv fullchain.pem away.pem",
        ["fullchain.pem does not exist", "nginx does not accept this: cannot load"],
        "ln -sf /etc/nginx/$SITE/http.conf",
        "cd /etc/letsencrypt/live/$SITE; mv away.pem fullchain.pem;"
        " ln -sf /etc/nginx/$SITE/https.conf /etc/nginx/conf.d/$SITE.conf;"
        " systemctl reload nginx",
    ),
    Fault(
        "certificate-ends",
        certificate("$DOMAIN", 10) + "; systemctl reload nginx",
        ["fullchain.pem was not renewed"],
        "certbot renew --cert-name $SITE",
        RESTORE_CERTIFICATE,
        first=None,  # without a terminal, certbot first waits for up to eight minutes
    ),
    Fault(
        "certificate-of-another",
        certificate("www.example.net", 80) + "; systemctl reload nginx",
        ["fullchain.pem is not a certificate for $DOMAIN"],
        "deploy/release --https",
        RESTORE_CERTIFICATE,
        first=None,  # the certificate authority does not survive the machine's reboot
    ),
    Fault(
        "certificate-not-served",
        certificate("$DOMAIN", 80),
        ["nginx serves another certificate"],
        "systemctl reload-or-restart nginx",
        RESTORE_CERTIFICATE,
    ),
    Fault(
        "renewal-off",
        "systemctl stop certbot.timer",
        ["no certbot timer is active"],
        "systemctl enable --now certbot.timer",
    ),
    Fault(
        "disk-full",
        "mount -t tmpfs -o size=1M full /tmp; head -c 2M /dev/zero > /tmp/full || true",
        ["/tmp is full: 100% of space"],
        "du -x -m /tmp",
        "umount /tmp",
        first="rm /tmp/full",
    ),
    Fault(
        "too-many-files",
        "mount -t tmpfs -o nr_inodes=40 full /tmp; touch /tmp/{1..39}",
        ["100% of inodes"],
        "du -x --inodes /tmp",
        "umount /tmp",
        first="rm /tmp/*",
    ),
]

MIGRATION = """revision = "planted"
down_revision = "HEAD"


def upgrade():
    pass


def downgrade():
    pass
"""
VERSION = "/opt/$SITE/migrations/versions/planted.py"
RUN = "/opt/$SITE/deploy/run alembic"
DATABASE = "/var/lib/private/$SITE/app.db"
WITH_BACKUP = "/opt/$SITE/deploy/backup; systemctl stop $SITE.socket $SITE; "
APP_STOPPED = ["$SITE.socket is inactive", "$SITE.service is inactive", *APP_DOWN]
SITE_DOWN = [
    "/run/$SITE.sock: the health check fails: 50",
    "https://$DOMAIN: the health check fails: 50",
]

# By the site where they are planted.
DATA_FAULTS = {
    "flask-gunicorn-sqlite": [
        Fault(
            "migrations-pending",
            f"head=$({RUN} heads | cut -d' ' -f1);"
            f' printf %s {shlex.quote(MIGRATION)} | sed "s/HEAD/$head/" > {VERSION}',
            ["migrations are pending"],
            "deploy/run alembic upgrade head",
            f"{RUN} downgrade -1; rm {VERSION}; systemctl restart $SITE",
        ),
        Fault(
            "database-damaged",
            f"{WITH_BACKUP} dd if=/dev/urandom of={DATABASE} bs=4096 seek=1 count=2"
            " conv=notrunc status=none",
            ["the database does not answer: ", *APP_STOPPED],
            "sudo /opt/$SITE/deploy/backup --restore",
        ),
        Fault(
            "database-missing",
            f"{WITH_BACKUP} rm {DATABASE}",
            ["the database is empty", *APP_STOPPED],
            "sudo /opt/$SITE/deploy/backup --restore",
        ),
    ],
    "fastapi-uvicorn-postgresql": [
        Fault(
            "postgresql-stopped",
            "systemctl stop postgresql",
            ["the database does not answer: psycopg.OperationalError", *SITE_DOWN],
            "sudo systemctl start postgresql",
            "systemctl start postgresql; systemctl restart $SITE",
        ),
        Fault(
            "wrong-password",
            KEEP_SETTINGS + "echo DATABASE_URL=postgresql://u:p@127.0.0.1/x >> /etc/$SITE.env",
            ["the database does not answer: psycopg.OperationalError"],
            "sudo nano /etc/$SITE.env",
            RESTORE_SETTINGS,
            first=None,
        ),
    ],
}

UFW = "printf 'Status: active\\n22/tcp  ALLOW  Anywhere\\n80,443/tcp  ALLOW  10.0.0.0/8\\n'"
FIREWALLD = "printf 'public (active)\\n  services: ssh\\n'"
IPTABLES = "printf -- '-P INPUT DROP\\n-A INPUT -p tcp --dport 22 -j ACCEPT\\n'"

HARMLESS = [
    *(
        Harmless(name, plant, f"a firewall is active; to see its rules: {look}", undo)
        for name, plant, look, undo in (
            ("ufw", fake("ufw", UFW), "sudo ufw status", "rm /usr/local/sbin/ufw"),
            (
                "firewalld",
                fake("firewall-cmd", FIREWALLD),
                "sudo firewall-cmd --list-all",
                "rm /usr/local/sbin/firewall-cmd",
            ),
            (
                "nft-with-a-range-of-ports",
                ruleset("tcp dport 1-1023 accept"),
                "sudo nft list ruleset",
                "rm /usr/local/sbin/nft",
            ),
            (
                "nft-open-to-one-network",
                ruleset("ip saddr 10.0.0.0/8 tcp dport { 80, 443 } accept"),
                "sudo nft list ruleset",
                "rm /usr/local/sbin/nft",
            ),
            (
                "iptables",
                fake("iptables", IPTABLES),
                "sudo iptables -S INPUT",
                "rm /usr/local/sbin/iptables",
            ),
        )
    ),
    Harmless(
        "no-firewall",
        fake("ufw", "echo Status: inactive"),
        None,
        "rm /usr/local/sbin/ufw",
    ),
    Harmless(
        "selinux",
        fake("getenforce", "echo Enforcing"),
        "SELinux is active; its refusals: sudo ausearch -m avc -ts recent",
        "rm /usr/local/sbin/getenforce",
    ),
    Harmless(
        "clock-not-synchronized",
        fake("timedatectl", "echo no"),
        "which is not synchronized: sudo apt install --yes chrony && sudo timedatectl set-ntp",
        "rm /usr/local/sbin/timedatectl",
    ),
    Harmless(
        "certificate-from-elsewhere",  # which certbot does not renew
        "mv /etc/letsencrypt/renewal/$SITE.conf /root/; systemctl stop certbot.timer",
        None,
        "mv /root/$SITE.conf /etc/letsencrypt/renewal/; systemctl start certbot.timer",
    ),
    Harmless(
        "no-backup-yet",
        "rm -f /var/backups/$SITE/*.gz",
        "there is no backup in /var/backups/$SITE yet",
        ONLY_BACKUP,
    ),
    Harmless(
        "backup-in-progress",
        "systemd-run --quiet --unit=backing-up flock /var/backups/$SITE/.lock sleep 60; sleep 1",
        None,
        "systemctl stop backing-up",
    ),
    Harmless(
        "release-in-progress",
        "touch /opt/$SITE.versions/switching; systemd-run --quiet --unit=releasing"
        " flock /opt/$SITE.versions/.lock sleep 60; sleep 1",
        None,
        "systemctl stop releasing; rm /opt/$SITE.versions/switching",
    ),
    Harmless(
        "setting-over-two-lines",
        KEEP_SETTINGS + "printf 'TEXT=\"one\\ntwo\"\\nWORDS=a \\\\\\n  b\\n' >> /etc/$SITE.env",
        None,
        RESTORE_SETTINGS,
    ),
    Harmless(
        "optional-setting",
        "echo API_TOKEN= >> /opt/$SITE/.env.example",
        "/etc/$SITE.env does not set API_TOKEN",
        "sed -i /API_TOKEN/d /opt/$SITE/.env.example",
    ),
    Harmless(
        "socket-for-the-group-of-nginx",
        "chown root:www-data /run/$SITE.sock; chmod 660 /run/$SITE.sock",
        None,
        "chown www-data:root /run/$SITE.sock; chmod 600 /run/$SITE.sock",
    ),
    Harmless(
        "first-page-missing",
        'sed -i \'s/get("\\/")/get("\\/home")/\' /opt/$SITE/app/routes.py;'
        " systemctl restart $SITE",
        None,
        'sed -i \'s/get("\\/home")/get("\\/")/\' /opt/$SITE/app/routes.py;'
        " systemctl restart $SITE",
    ),
    Harmless(
        "name-on-another-port",
        'echo "server { listen 8081; server_name $DOMAIN; }" > /etc/nginx/sites-enabled/rival',
        None,
        "rm /etc/nginx/sites-enabled/rival",
    ),
    Harmless(
        "address-of-a-proxy",
        'sed -i "s/^.* $DOMAIN$/192.0.2.7 $DOMAIN/" /etc/hosts',
        "$DOMAIN resolves to 192.0.2.7: does that lead to this server?",
        RESTORE_HOSTS,
    ),
    Harmless(
        "process-out-of-memory",  # what systemd logs then
        "printf '%s\\n' MESSAGE_ID=fe6faa94e7774663a0da52717891d8ef UNIT=$SITE.service"
        " MESSAGE=killed | logger --journald; journalctl --sync",
        "the kernel ended processes of the app for lack of memory, 1 in the last day",
        "true",
    ),
    Harmless(
        "renewal-by-cron",
        "systemctl stop certbot.timer; echo '0 0 * * * root certbot renew' >> /etc/crontab",
        None,
        "systemctl start certbot.timer; sed -i /certbot/d /etc/crontab",
    ),
]
