<?php
/**
 * Plugin Name: OTelWP (must-use loader)
 * Description: Loads OTelWP before all other plugins, so that traces contain the loading of plugins. It also runs on all sites of a network.
 * Version:     0.1.0
 * License:     GPL-2.0-or-later
 *
 * Copy this file to wp-content/mu-plugins/, in addition to the plugin.
 *
 * @package Otelwp
 */

defined( 'ABSPATH' ) || exit;

if ( is_readable( WP_PLUGIN_DIR . '/otelwp/otelwp.php' ) ) {
	define( 'OTELWP_MU', true );
	require_once WP_PLUGIN_DIR . '/otelwp/otelwp.php';
}
