<?php
/**
 * Plugin Name: OTelWP (must-use loader)
 * Description: Loads OTelWP before all other plugins, so that traces contain the loading of plugins.
 * Version:     0.1.0
 * License:     GPL-2.0-or-later
 *
 * Copy this file to wp-content/mu-plugins/, in addition to the plugin. It loads the plugin where it is active: on this
 * site, or for all sites of a network. If OTELWP_ALWAYS is true in wp-config.php, the plugin runs on all sites, active
 * or not.
 *
 * @package Otelwp
 */

defined( 'ABSPATH' ) || exit;

( static function () {
	$name   = 'otelwp/otelwp.php';
	$always = defined( 'OTELWP_ALWAYS' ) && OTELWP_ALWAYS;
	$active = $always || in_array( $name, (array) get_option( 'active_plugins' ), true )
		|| is_multisite() && isset( ( (array) get_site_option( 'active_sitewide_plugins' ) )[ $name ] );
	if ( $active && is_readable( WP_PLUGIN_DIR . '/' . $name ) ) {
		define( 'OTELWP_MU', true );
		require_once WP_PLUGIN_DIR . '/' . $name;
	}
} )();
