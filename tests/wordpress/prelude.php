<?php
/**
 * What the plugin's own classes need of WordPress to run without it: paths, errors, and transients that last a process.
 *
 * What needs more of WordPress is tested on a WordPress, by `make interop`.
 */

define( 'ABSPATH', '/srv/www/' );
define( 'WP_CONTENT_DIR', '/srv/www/wp-content' );
define( 'WP_PLUGIN_DIR', WP_CONTENT_DIR . '/plugins' );
define( 'WPMU_PLUGIN_DIR', WP_CONTENT_DIR . '/mu-plugins' );
define( 'OTELWP_VERSION', '0.0.0' );
define( 'OTELWP_DIR', getenv( 'OTELWP_PLUGIN' ) );

$GLOBALS['transients']   = array();
$GLOBALS['writes']       = 0;
$GLOBALS['table_prefix'] = 'wp_';

function get_transient( $name ) {
	return $GLOBALS['transients'][ $name ] ?? false;
}

function set_transient( $name, $value ) {
	$GLOBALS['transients'][ $name ] = $value;
	++$GLOBALS['writes'];
}

function wp_using_ext_object_cache() {
	return false;
}

function __( $text ) {
	return $text;
}

function is_wp_error( $thing ) {
	return $thing instanceof WP_Error;
}

class WP_Error {
	private $message;

	public function __construct( $code, $message ) {
		$this->message = $message;
	}

	public function get_error_message() {
		return $this->message;
	}
}

spl_autoload_register(
	static function ( $name ) {
		$parts = explode( '/', strtolower( strtr( substr( $name, 7 ), '\\_', '/-' ) ) );
		$last  = array_pop( $parts );
		require OTELWP_DIR . '/includes/' . ( $parts ? $parts[0] . '/' : '' ) . 'class-' . $last . '.php';
	}
);
