<?php
/**
 * Removes everything that the plugin has saved, on every site.
 *
 * @package Otelwp
 */

defined( 'WP_UNINSTALL_PLUGIN' ) || exit;

/**
 * Remove what is saved on the current site.
 */
function otelwp_uninstall_site() {
	global $wpdb;
	foreach ( array( 'otelwp_settings', 'otelwp_agent', 'otelwp_fleet' ) as $otelwp_option ) {
		delete_option( $otelwp_option );
	}
	delete_transient( 'otelwp_breaker' );
	// Results of test traces, one for each user. Their names end with the user's number.
	$otelwp_names = $wpdb->get_col( $wpdb->prepare( "SELECT option_name FROM {$wpdb->options} WHERE option_name LIKE %s", $wpdb->esc_like( '_transient_otelwp_test_' ) . '%' ) ); // phpcs:ignore WordPress.DB.DirectDatabaseQuery -- there is no function that lists transients.
	foreach ( $otelwp_names as $otelwp_name ) {
		delete_transient( substr( $otelwp_name, strlen( '_transient_' ) ) );
	}
	// Events that were not sent.
	$otelwp_names = $wpdb->get_col( $wpdb->prepare( "SELECT option_name FROM {$wpdb->options} WHERE option_name LIKE %s", $wpdb->esc_like( 'otelwp_event_' ) . '%' ) ); // phpcs:ignore WordPress.DB.DirectDatabaseQuery -- there is no function that lists options.
	array_map( 'delete_option', $otelwp_names );
	wp_clear_scheduled_hook( 'otelwp_heartbeat' );
}

if ( is_multisite() ) {
	foreach ( get_sites( array( 'fields' => 'ids', 'number' => 0 ) ) as $otelwp_site ) { // phpcs:ignore WordPress.Arrays.ArrayDeclarationSpacing
		switch_to_blog( $otelwp_site );
		otelwp_uninstall_site();
		restore_current_blog();
	}
	delete_site_option( 'otelwp_settings' );
} else {
	otelwp_uninstall_site();
}
if ( function_exists( 'apcu_enabled' ) && apcu_enabled() ) {
	apcu_delete( new APCUIterator( '/^' . preg_quote( 'otelwp:' . ABSPATH . ':', '/' ) . '/' ) );
}
