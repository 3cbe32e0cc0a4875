"""A real WordPress: PHP-FPM, MariaDB and nginx on loopback, in a folder that goes away with it."""

import contextlib
import http.cookiejar
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from peers import debian

from tests.interop.process import Process, answers, have
from tests.kit.agent import free_port

ROOT = os.geteuid() == 0
USER, PASSWORD = "admin", "interop-1"

WP_CONFIG = """<?php
define( 'DB_NAME', 'wordpress' );
define( 'DB_USER', 'root' );
define( 'DB_PASSWORD', '' );
define( 'DB_HOST', 'localhost:{socket}' );
define( 'DB_CHARSET', 'utf8mb4' );
define( 'DB_COLLATE', '' );
{salts}
define( 'WP_ENVIRONMENT_TYPE', 'staging' );
define( 'WP_HTTP_BLOCK_EXTERNAL', true );
define( 'WP_ACCESSIBLE_HOSTS', '127.0.0.1,localhost' );
define( 'AUTOMATIC_UPDATER_DISABLED', true );
define( 'DISABLE_WP_CRON', true ); // Tests ask for wp-cron.php when they want it.
define( 'WP_DEBUG', false );
$table_prefix = 'wp_';
if ( ! defined( 'ABSPATH' ) ) {{
	define( 'ABSPATH', __DIR__ . '/' );
}}
require_once ABSPATH . 'wp-settings.php';
"""
SALTS = ("AUTH_KEY", "SECURE_AUTH_KEY", "LOGGED_IN_KEY", "NONCE_KEY")
SALTS += tuple(name.replace("KEY", "SALT") for name in SALTS)

PHP_INI = """
display_errors = Off
log_errors = On
"""
"""As on a site that people visit: a fatal error is a 500, and no text."""

FPM = """
[global]
error_log = {folder}/php-fpm-errors.log
daemonize = no
[www]
listen = {folder}/fpm.sock
{user}
pm = static
pm.max_children = 4
clear_env = no
catch_workers_output = yes
"""

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-errors.log;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/site;
    index index.php;
    location / {{ try_files $uri $uri/ /index.php?$args; }}
    location ~ \\.php$ {{
      try_files $uri =404;
      fastcgi_pass unix:{folder}/fpm.sock;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_param SCRIPT_NAME $fastcgi_script_name;
      fastcgi_param DOCUMENT_ROOT $document_root;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param REQUEST_URI $request_uri;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param REMOTE_ADDR $remote_addr;
      fastcgi_param SERVER_NAME $server_addr;
      fastcgi_param SERVER_PORT $server_port;
      fastcgi_param SERVER_PROTOCOL $server_protocol;
      fastcgi_param HTTP_HOST $http_host;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Answer:
    """What a page said."""

    status: int
    headers: dict
    text: str


class WordPress:
    """WordPress at `http://127.0.0.1:<port>`, with pretty permalinks. `site` is its folder."""

    def __init__(self):
        self.machine = have(debian.wordpress)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = None
        self._close = contextlib.ExitStack()
        self._opener = self._strangers = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            # Short, for a socket's path has room for a hundred characters.
            self.folder = Path(tempfile.mkdtemp(prefix="otelwp-wordpress-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            shutil.copytree(self.machine.site, self.site)
            self._configure()
            for program in (MariaDb, Fpm, Nginx):
                stack.enter_context(program(self))
            self._install()
            self._close = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._close.close()

    @property
    def site(self):
        return self.folder / "site"

    def visit(self, path, data=None, *, headers=None, logged_in=False):
        """Ask for a page as a browser, without following redirects; `data` are the fields of a form."""
        body = urllib.parse.urlencode(data).encode() if data is not None else None
        request = urllib.request.Request(self.url + path, body, headers or {})
        opener = self._opener if logged_in else opener_of(http.cookiejar.CookieJar())
        try:
            with opener.open(request, timeout=60) as response:
                return Answer(response.status, dict(response.headers), response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read().decode())

    def php(self, code):
        """Run PHP code inside WordPress, on the command line; return what it prints."""
        load = f"$_SERVER['HTTP_HOST'] = '127.0.0.1:{self.port}'; require '{self.site}/wp-load.php'; "
        return self._php(load + code)

    def add(self, plugin, *, activate=True):
        """Copy a plugin's folder to the site, and activate it; its main file is named like the folder."""
        shutil.copytree(plugin, self.site / "wp-content/plugins" / plugin.name)
        if activate:
            self.activate(plugin.name)

    def activate(self, name):
        said = self.php(
            f"require ABSPATH . 'wp-admin/includes/plugin.php'; $found = activate_plugin('{name}/{name}.php');"
            "echo is_wp_error($found) ? $found->get_error_message() : 'active';"
        )
        assert said.endswith("active"), said

    def deactivate(self, name):
        self.php(f"require ABSPATH . 'wp-admin/includes/plugin.php'; deactivate_plugins('{name}/{name}.php');")

    def add_must_use(self, name, code):
        """Write a file that WordPress loads before everything else."""
        folder = self.site / "wp-content/mu-plugins"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(code)

    def option(self, name, value):
        """Set an option of the site."""
        self.php(f"update_option('{name}', json_decode('{json.dumps(value)}', true));")

    def version(self):
        return self.php("global $wp_version; echo $wp_version;")

    def environment(self):
        """The environment of its programs: no configuration of the system's."""
        return {**self.machine.environment, "PHP_INI_SCAN_DIR": "", "PHPRC": str(self.folder / "php.ini")}

    def _configure(self):
        salts = "\n".join(f"define( '{name}', 'interop {name}' );" for name in SALTS)
        config = WP_CONFIG.format(socket=self.folder / "db.sock", salts=salts)
        (self.site / "wp-config.php").write_text(config)
        (self.folder / "php.ini").write_text(self.machine.php_ini + PHP_INI)

    def _install(self):
        user = {"user_name": USER, "admin_password": PASSWORD, "admin_password2": PASSWORD, "pw_weak": "1"}
        site = {"weblog_title": "Interop", "admin_email": "admin@example.test", "language": "", "blog_public": "0"}
        said = self.visit("/wp-admin/install.php?step=2", {**site, **user})
        assert "<h1>Success" in said.text, said
        self.php("global $wp_rewrite; $wp_rewrite->set_permalink_structure('/%postname%/'); flush_rewrite_rules();")
        self._opener = opener_of(http.cookiejar.CookieJar())
        self.visit("/wp-login.php", logged_in=True)
        login = self.visit("/wp-login.php", {"log": USER, "pwd": PASSWORD, "testcookie": "1"}, logged_in=True)
        assert login.status == 302, login

    def _php(self, code):
        done = subprocess.run(
            [self.machine.program("php"), "-r", code],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


class Program(Process):
    """One of the programs that WordPress runs on."""

    def __init__(self, wordpress):
        super().__init__(wordpress.folder)
        self.wordpress = wordpress
        self.machine = wordpress.machine

    def environment(self):
        return self.wordpress.environment()


class MariaDb(Program):
    """The database, reached by a socket alone."""

    name = "mariadb"

    def command(self):
        data, base = self.folder / "db", []
        if (self.machine.root / "usr/share/mysql").is_dir():
            base = [f"--basedir={self.machine.root / 'usr'}"]
        as_root = ["--user=root"] if ROOT else []
        subprocess.run(
            [
                self.machine.program("mariadb-install-db"),
                *["--no-defaults", *base, f"--datadir={data}", *as_root],
                *["--auth-root-authentication-method=normal", "--skip-test-db"],
            ],
            env={**os.environ, **self.environment()},
            check=True,
            capture_output=True,
        )
        files = [f"--socket={self.folder}/db.sock", f"--pid-file={self.folder}/db.pid", f"--datadir={data}"]
        small = ["--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off"]
        return [self.machine.program("mariadbd"), "--no-defaults", *base, *as_root, *files, *small, "--skip-networking"]

    def ready(self):
        code = f"""
            mysqli_report(MYSQLI_REPORT_OFF);
            $db = @new mysqli('localhost', 'root', '', '', 0, '{self.folder}/db.sock');
            echo $db->connect_errno || ! $db->query('CREATE DATABASE IF NOT EXISTS wordpress') ? 'no' : 'yes';
        """
        return self.wordpress._php(code) == "yes"


class Fpm(Program):
    """PHP."""

    name = "php-fpm"

    def command(self):
        config = self.folder / "fpm.conf"
        config.write_text(FPM.format(folder=self.folder, user="user = root\ngroup = root" if ROOT else ""))
        as_root = ["-R"] if ROOT else []
        return [self.machine.program("php-fpm8.2"), "-F", *as_root, "-c", self.folder / "php.ini", "-y", config]

    def ready(self):
        return (self.folder / "fpm.sock").exists()


class Nginx(Program):
    """The web server."""

    name = "nginx"

    def command(self):
        config = self.folder / "nginx.conf"
        user = "user root;" if ROOT else ""
        config.write_text(NGINX.format(folder=self.folder, port=self.wordpress.port, user=user))
        return [self.machine.program("nginx"), "-e", self.folder / "nginx-errors.log", "-c", config]

    def ready(self):
        return answers(self.wordpress.port, "/wp-admin/install.php")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def opener_of(cookies):
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies), _NoRedirect())
