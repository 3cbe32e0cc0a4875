<?php
/**
 * The settings: what they are, where they come from, what may stand in them.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * One autoloaded option that holds them all: of the site, or of the network where the plugin runs for all its sites.
 *
 * A constant in wp-config.php wins over the option: `OTELWP_SAMPLING_RATE` over `sampling_rate`.
 */
final class Settings {

	const OPTION = 'otelwp_settings';

	/**
	 * What holds for this request; null before it was asked for.
	 *
	 * @var array|null
	 */
	private static $values = null;

	/**
	 * Whether the option was there when it was looked for last.
	 *
	 * @var bool
	 */
	private static $stored = true;

	/**
	 * Return every setting with its default.
	 *
	 * @return array
	 */
	public static function defaults() {
		return array(
			'enabled'         => true,
			'service_name'    => '',      // '' is the host and path of the home page.
			'sampling_rate'   => 0.1,     // 0 to 1; the agent may ask for less, never for more.
			'follow_parent'   => true,    // Whether a caller's decision to sample counts.
			'keep_errors'     => true,    // Whether a request that fails is sent although it was not sampled.
			'endpoints'       => array(
				'unixgram:///run/otelwp/datagram.sock',
				'unix:///run/otelwp/otlp.sock',
				'http://127.0.0.1:4318',
			),
			'agent_url'       => 'http://127.0.0.1:13133', // Health and heartbeat.
			'sampling_url'    => '',      // Where rates are asked for besides, as Jaeger's clients do.
			'database'        => 'timed', // See Collect\Database.
			'slow_query_ms'   => 50,
			'slowest_queries' => 10,
			'n_plus_one'      => 10,      // Executions of one statement in a request that are too many.
			'propagate'       => 'all',   // Which outgoing requests carry `traceparent`: all, site, none.
			'server_timing'   => false,
			'finish_request'  => false,
			'query_string'    => false,
			'max_spans'       => 200,
		);
	}

	/**
	 * Return a setting.
	 *
	 * @param string $key One of those in defaults().
	 * @return mixed
	 */
	public static function get( $key ) {
		if ( null === self::$values ) {
			self::$values = self::load();
		}
		return self::$values[ $key ];
	}

	/**
	 * Tell whether the option exists. A must-use plugin is never activated, and then nobody has created it.
	 *
	 * @return bool
	 */
	public static function are_stored() {
		self::get( 'enabled' );
		return self::$stored;
	}

	/**
	 * Return all settings.
	 *
	 * @return array
	 */
	public static function all() {
		self::get( 'enabled' );
		return self::$values;
	}

	/**
	 * Read them anew when they are asked for next.
	 */
	public static function forget() {
		self::$values = null;
	}

	/**
	 * Tell whether wp-config.php decides a setting.
	 *
	 * @param string $key One of those in defaults().
	 * @return bool
	 */
	public static function is_constant( $key ) {
		return defined( 'OTELWP_' . strtoupper( $key ) );
	}

	/**
	 * Tell whether the settings are those of a network.
	 *
	 * @return bool
	 */
	public static function of_network() {
		if ( ! is_multisite() ) {
			return false;
		}
		if ( defined( 'OTELWP_MU' ) ) {
			return true;
		}
		$active = get_site_option( 'active_sitewide_plugins' );
		return isset( $active[ plugin_basename( OTELWP_FILE ) ] );
	}

	/**
	 * Save settings that were sanitized.
	 *
	 * @param array $values All of them.
	 */
	public static function save( array $values ) {
		if ( self::of_network() ) {
			update_site_option( self::OPTION, $values );
		} else {
			update_option( self::OPTION, $values );
		}
		self::forget();
	}

	/**
	 * Return what is valid of a form, and what stands now for the rest; say what was refused.
	 *
	 * @param mixed $input From the settings page, or from code that saves the option.
	 * @return array
	 */
	public static function sanitize( $input ) {
		$clean = self::stored();
		if ( ! is_array( $input ) ) {
			return $clean;
		}
		foreach ( self::defaults() as $key => $default ) {
			if ( self::is_constant( $key ) || ! array_key_exists( $key, $input ) ) {
				continue;
			}
			try {
				$clean[ $key ] = self::valid( $key, $input[ $key ], $default );
			} catch ( \InvalidArgumentException $problem ) {
				if ( function_exists( 'add_settings_error' ) ) {
					add_settings_error( self::OPTION, $key, $problem->getMessage() );
				}
			}
		}
		return $clean;
	}

	/**
	 * Return a value as it may be saved.
	 *
	 * @param string $key      The setting.
	 * @param mixed  $value    What somebody wants it to be.
	 * @param mixed  $standard Its default; tells the type.
	 * @return mixed
	 * @throws \InvalidArgumentException When it makes no sense; the message says what would.
	 */
	private static function valid( $key, $value, $standard ) {
		if ( is_bool( $standard ) ) {
			return (bool) $value;
		}
		switch ( $key ) {
			case 'sampling_rate':
				if ( ! is_numeric( $value ) || $value < 0 || $value > 1 ) {
					throw new \InvalidArgumentException( esc_html__( 'The sampling rate is a number from 0 (nothing) to 1 (every request).', 'otelwp' ) );
				}
				return (float) $value;
			case 'endpoints':
				return self::valid_endpoints( $value );
			case 'agent_url':
			case 'sampling_url':
				$url = trim( (string) $value );
				if ( '' !== $url && null === Agent_Client::parse( $url ) ) {
					/* translators: %s: what was entered */
					throw new \InvalidArgumentException( esc_html( sprintf( __( '%s is no address of an agent: write http://127.0.0.1:13133 or unix:///run/otelwp/health.sock.', 'otelwp' ), $url ) ) );
				}
				return $url;
			case 'database':
				return in_array( $value, array( 'timed', 'counted', 'off' ), true ) ? $value : $standard;
			case 'propagate':
				return in_array( $value, array( 'all', 'site', 'none' ), true ) ? $value : $standard;
			case 'service_name':
				return substr( sanitize_text_field( (string) $value ), 0, 200 );
			default:
				$limits = array(
					'slow_query_ms'   => array( 1, 60000 ),
					'slowest_queries' => array( 0, 50 ),
					'n_plus_one'      => array( 2, 1000 ),
					'max_spans'       => array( 20, 1000 ),
				);
				return min( max( (int) $value, $limits[ $key ][0] ), $limits[ $key ][1] );
		}
	}

	/**
	 * Return a list of endpoints from a list or from text, one a line.
	 *
	 * @param mixed $value What was entered.
	 * @return string[]
	 * @throws \InvalidArgumentException When one of them is none.
	 */
	private static function valid_endpoints( $value ) {
		$lines = is_array( $value ) ? $value : preg_split( '/[\s,]+/', (string) $value );
		$lines = array_values( array_unique( array_filter( array_map( 'trim', array_map( 'strval', $lines ) ), 'strlen' ) ) );
		foreach ( $lines as $line ) {
			if ( null === Endpoint::parse( $line ) ) {
				/* translators: %s: what was entered */
				throw new \InvalidArgumentException( esc_html( sprintf( __( '%s is no endpoint: write unixgram:///path, unix:///path, udp://127.0.0.1:4319 or http://127.0.0.1:4318.', 'otelwp' ), $line ) ) );
			}
		}
		if ( ! $lines ) {
			throw new \InvalidArgumentException( esc_html__( 'Without an endpoint nothing can be sent: the endpoints are what they were. To send nothing, untick "Record requests".', 'otelwp' ) );
		}
		return array_slice( $lines, 0, 8 );
	}

	/**
	 * Return what is saved, completed by defaults.
	 *
	 * @return array
	 */
	private static function stored() {
		$saved = self::of_network() ? get_site_option( self::OPTION ) : get_option( self::OPTION );
		$all   = self::defaults();

		self::$stored = false !== $saved;
		return is_array( $saved ) ? array_merge( $all, array_intersect_key( $saved, $all ) ) : $all;
	}

	/**
	 * Return what holds: constants over the option over defaults.
	 *
	 * @return array
	 */
	private static function load() {
		$values = self::stored();
		foreach ( $values as $key => $value ) {
			$name = 'OTELWP_' . strtoupper( $key );
			if ( defined( $name ) ) {
				$constant       = constant( $name );
				$values[ $key ] = 'endpoints' === $key && is_string( $constant ) ? preg_split( '/[\s,]+/', trim( $constant ) ) : $constant;
			}
		}
		return $values;
	}
}
