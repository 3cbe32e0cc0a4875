<?php
/**
 * The site in its traces.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * The resource of OTLP, which describes the sender.
 */
final class Site {

	/**
	 * Return the attributes of this site.
	 *
	 * @return array
	 */
	public static function resource() {
		$attributes = array(
			'service.name'                => self::service_name(),
			'deployment.environment.name' => wp_get_environment_type(),
			'telemetry.sdk.name'          => 'otelwp',
			'telemetry.sdk.language'      => 'php',
			'telemetry.sdk.version'       => OTELWP_VERSION,
			'host.name'                   => (string) gethostname(),
			'process.runtime.name'        => PHP_SAPI,
			'process.runtime.version'     => PHP_VERSION,
			'webengine.name'              => 'WordPress',
			'webengine.version'           => get_bloginfo( 'version' ),
			'wordpress.site.host'         => self::authority(),
		);
		if ( is_multisite() ) {
			$attributes['wordpress.site.id']    = get_current_blog_id();
			$attributes['wordpress.network.id'] = get_current_network_id();
		}
		return $attributes;
	}

	/**
	 * Return the name of the service: the setting, or host and path of the home page, which distinguishes sites that
	 * share a host.
	 *
	 * @return string
	 */
	public static function service_name() {
		$name = (string) Settings::get( 'service_name' );
		if ( '' !== $name ) {
			return $name . ( is_multisite() && get_current_blog_id() > 1 ? '-site-' . get_current_blog_id() : '' );
		}
		return '' === self::host() ? 'site' : self::id();
	}

	/**
	 * Return host and path of the home page, which distinguish this site from all others.
	 *
	 * @return string
	 */
	public static function id() {
		$home = self::home();
		return self::authority() . ( isset( $home['path'] ) ? rtrim( $home['path'], '/' ) : '' );
	}

	/**
	 * Return the host of the home page. The host name in a request is not used, because the client can choose it.
	 *
	 * @return string
	 */
	public static function host() {
		$home = self::home();
		return isset( $home['host'] ) ? $home['host'] : '';
	}

	/**
	 * Return host and port as in WordPress's own `User-Agent`: the port only if it is not the default.
	 *
	 * @return string
	 */
	public static function authority() {
		$home = self::home();
		return strtolower( self::host() ) . ( isset( $home['port'] ) ? ':' . $home['port'] : '' );
	}

	/**
	 * Return the parts of the home page's address.
	 *
	 * @return array
	 */
	private static function home() {
		static $homes = array();
		$home = (string) get_option( 'home' );
		if ( ! isset( $homes[ $home ] ) ) {
			$parts          = wp_parse_url( $home );
			$homes[ $home ] = is_array( $parts ) ? $parts : array();
		}
		return $homes[ $home ];
	}
}
