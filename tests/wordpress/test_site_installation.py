"""Ways to install the plugin on a real WordPress: for one site, as a must-use plugin, on a network; and its removal."""

import json
import re
import shutil
import time

import pytest

from tests.interop.wordpress import PASSWORD, USER
from tests.wordpress.conftest import PLUGIN, ROOT
from tests.wordpress.kit import FRONT, PATIENCE, SETTINGS, attributes, form

pytestmark = pytest.mark.interop


LOADER = ROOT / "examples/wordpress/mu-plugins/otelwp-loader.php"


def test_the_readme_names_the_version_that_it_was_tested_with(site):
    (stated,) = re.findall(r"^Tested up to: (\S+)$", (PLUGIN / "readme.txt").read_text("utf-8"), re.MULTILINE)
    assert site.wordpress.version().split(".")[:2] == stated.split(".")


def test_as_a_must_use_plugin(site):
    folder = site.wordpress.site / "wp-content/mu-plugins"
    before = site.ask("return Otelwp\\Settings::all();")
    shutil.copy(LOADER, folder / "a-loader.php")
    both = [site.trace("/") for _ in range(2)][-1]
    site.wordpress.deactivate("otelwp")
    site.settle()
    site.wordpress.visit("/")
    assert site.listener.read() == [], "deactivated"
    site.wordpress.add_must_use("a-always.php", "<?php define('OTELWP_ALWAYS', true);")
    with site.changed(sampling_rate=0):
        site.wordpress.php("delete_option('otelwp_settings'); delete_option('otelwp_agent');")
        site.wordpress.visit("/")
        assert site.ask("return get_option('otelwp_settings') == Otelwp\\Settings::defaults();"), "nobody activates it"
    site.set(**before)
    site.trace("/")
    early = site.trace("/")
    site.wordpress.activate("otelwp")
    site.trace("/")
    (folder / "a-loader.php").unlink()
    (folder / "a-always.php").unlink()
    late = site.trace("/")

    def seen(trace):
        return attributes(trace.root)["wordpress.db.group_count"]

    assert early.phases == both.phases == FRONT
    assert seen(early) == seen(both) >= seen(late)


NETWORK = """
    define('WP_INSTALLING_NETWORK', true);
    require_once ABSPATH . 'wp-admin/includes/upgrade.php';
    foreach ($GLOBALS['wpdb']->tables('ms_global') as $table => $name) { $GLOBALS['wpdb']->$table = $name; }
    install_network();
    $done = populate_network(1, $_SERVER['HTTP_HOST'], 'a@example.test', 'Net', '/', false);
    echo is_wp_error($done) ? $done->get_error_message() : 'done';
"""


def test_on_a_network(site):
    """Last but two: this WordPress becomes a network."""
    wordpress = site.wordpress
    wordpress.deactivate("otelwp")
    assert wordpress.php(NETWORK).endswith("done")
    config = wordpress.site / "wp-config.php"
    constants = (
        "define('MULTISITE', true); define('SUBDOMAIN_INSTALL', false); define('DOMAIN_CURRENT_SITE',"
        f" '127.0.0.1:{wordpress.port}'); define('PATH_CURRENT_SITE', '/'); define('SITE_ID_CURRENT_SITE', 1);"
        " define('BLOG_ID_CURRENT_SITE', 1);\n$table_prefix"
    )
    config.write_text(config.read_text("utf-8").replace("$table_prefix", constants, 1), "utf-8")
    domain = f"127.0.0.1:{wordpress.port}"
    wordpress.php(
        "require ABSPATH . 'wp-admin/includes/plugin.php'; $e = activate_plugin('otelwp/otelwp.php', '', true);"
        "echo is_wp_error($e) ? $e->get_error_message() : '';"
    )
    site.set(sampling_rate=1, endpoints=site.listener.url, agent_url="")
    second = site.ask(f"return wp_insert_site(['domain' => '{domain}', 'path' => '/second/', 'user_id' => 1]);")
    assert second == 2
    assert site.ask(
        "return [get_site_option('otelwp_settings')['sampling_rate'], get_blog_option(2, 'otelwp_agent')];"
    ) == [1, []]
    end = time.monotonic() + PATIENCE
    while not (found := site.listener.read()):  # PHP looks at wp-config.php every two seconds.
        assert time.monotonic() < end
        wordpress.visit("/")
        time.sleep(0.2)
    first = found[0]
    other_site = site.trace("/?rest_route=/wp/v2/posts", headers={"Host": domain})
    assert first.resource["wordpress.site.id"] == other_site.resource["wordpress.site.id"] == 1
    assert first.resource["service.name"] == domain
    named = site.ask(
        "switch_to_blog(2); return [Otelwp\\Site::service_name(), Otelwp\\Site::resource()['wordpress.site.id']];"
    )
    assert (named[0].endswith("/second"), named[1]) == (True, 2)

    wordpress.visit("/wp-login.php", logged_in=True)  # A network has other cookies.
    wordpress.visit("/wp-login.php", {"log": USER, "pwd": PASSWORD, "testcookie": "1"}, logged_in=True)
    page = wordpress.visit("/wp-admin/network/settings.php?page=otelwp", logged_in=True)
    assert page.status == 200
    fields = form(page.text, "network/edit.php\\?action=otelwp_network_save") | {"otelwp_settings[n_plus_one]": "55"}
    save = "/wp-admin/network/edit.php?action=otelwp_network_save"
    assert wordpress.visit(save, fields, logged_in=True).status == 302
    assert wordpress.visit(save, fields | {"_wpnonce": "forged"}, logged_in=True).status == 403
    assert site.ask("return get_site_option('otelwp_settings')['n_plus_one'];") == 55
    assert wordpress.visit(SETTINGS, logged_in=True).status == 403, "a site has no page of its own then"


AS_SITE = """<?php
add_action('init', function () {
    if ('sites' !== ($_GET['case'] ?? '')) { return; }
    wp_set_current_user((int) $_GET['user']);
    $o = array_merge(Otelwp\\Settings::all(), ['agent_url' => $_GET['url'], 'n_plus_one' => (int) $_GET['n']]);
    update_option('otelwp_settings', $o);
    $saved = get_option('otelwp_settings');
    wp_send_json([$saved['agent_url'], $saved['n_plus_one'], Otelwp\\Settings::may_change('agent_url')]);
});
"""


def test_on_a_network_sites_do_not_change_addresses(site):
    """Where the plugin is active for a single site, whose administrator may change all else."""
    wordpress = site.wordpress
    activate = "require ABSPATH . 'wp-admin/includes/plugin.php';"
    wordpress.php(
        f"{activate} deactivate_plugins('otelwp/otelwp.php', false, true); activate_plugin('otelwp/otelwp.php');"
    )
    user = site.ask(
        "$id = wp_create_user('ann', 'pw-1', 'ann@example.test');add_user_to_blog(1, $id, 'administrator'); return $id;"
    )
    assert site.ask(f"return user_can({user}, 'manage_options') && ! user_can({user}, 'manage_network_options');")
    wordpress.add_must_use("sites.php", AS_SITE)
    before = site.ask("return get_option('otelwp_settings')['agent_url'];")
    address = "http://127.0.0.1:9"
    site_admin = wordpress.visit(f"/?case=sites&user={user}&url={address}&n=77")
    assert json.loads(site_admin.text) == [before, 77, False]
    network_admin = wordpress.visit(f"/?case=sites&user=1&url={address}&n=78")
    assert json.loads(network_admin.text) == [address, 78, True]
    wordpress.php(
        f"{activate} deactivate_plugins('otelwp/otelwp.php'); activate_plugin('otelwp/otelwp.php', '', true);"
    )


def test_each_site_of_a_network_is_an_installation(site):
    """Only with a merchant, and with an id that the other sites do not have."""
    identities = """
        foreach (get_sites(['fields' => 'ids']) as $id) {
            switch_to_blog($id);
            $found[] = Otelwp\\Fleet::identity();
            restore_current_blog();
        }
        return $found;
    """
    assert [each.keys() & {"merchant_id", "site_id"} for each in site.ask(identities)] == [set()] * 2
    with site.changed(merchant_id="acme"):
        found = site.ask(identities)
    assert {each["merchant_id"] for each in found} == {"acme"}
    assert len({each["site_id"] for each in found}) == len(found) == 2


LEFT = """
    $left = [get_site_option('otelwp_settings'), wp_next_scheduled('otelwp_heartbeat')];
    foreach (get_sites(['fields' => 'ids']) as $id) {
        switch_to_blog($id);
        $options = $GLOBALS['wpdb']->options;
        $left = array_merge($left, $GLOBALS['wpdb']->get_col(
            "SELECT option_name FROM $options WHERE option_name LIKE '%otelwp%'"));
        restore_current_blog();
    }
    return $left;
"""


def test_uninstalling_leaves_nothing(site):
    """Last."""
    site.ask("add_option('otelwp_fleet', [], '', false); return add_option('otelwp_event_x', [], '', false);")
    left = site.ask(LEFT)
    assert len(left) > 6
    assert {"otelwp_fleet", "otelwp_event_x"} <= {*left[2:]}
    for step in ("deactivate_plugins('otelwp/otelwp.php', false, true);", "uninstall_plugin('otelwp/otelwp.php');"):
        site.wordpress.php(f"require ABSPATH . 'wp-admin/includes/plugin.php'; {step}")
    assert site.ask(LEFT) == [False, False]
