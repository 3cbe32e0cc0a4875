<?php
/**
 * The settings: their defaults, sources and valid values.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * All settings are in one autoloaded option: of the site, or of the network if the plugin is active for all its sites.
 *
 * A constant in wp-config.php overrides the option: `OTELWP_SAMPLING_RATE` overrides `sampling_rate`.
 */
final class Settings {

	const OPTION = 'otelwp_settings';

	const URLS = array( 'endpoints', 'agent_url', 'sampling_url', 'heartbeat_url' ); // Settings with addresses of the agent.

	/**
	 * The settings of this request; null if they were not read yet.
	 *
	 * @var array|null
	 */
	private static $values = null;

	/**
	 * Whether the option existed when it was last read.
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
			'service_name'    => '', // '' means the host and path of the home page.
			'sampling_rate'   => 0.1, // 0 to 1; the agent may request less, never more.
			'follow_parent'   => true, // Whether to follow the sampling decision of a caller in trusted_proxies.
			'trusted_proxies' => array(), // Addresses and networks (CIDR) of callers whose traces are continued.
			'keep_errors'     => true, // Whether a failed request is sent although it was not sampled.
			'endpoints'       => array(
				'unixgram:///run/otelwp/datagram.sock',
				'unix:///run/otelwp/otlp.sock',
				'http://127.0.0.1:4318',
			),
			'agent_url'       => 'http://127.0.0.1:13133', // Health and heartbeat.
			'heartbeat_url'   => '', // Where heartbeats and events are sent; '' means agent_url.
			'ui_url'          => '', // The agent's page for administrators, as their browsers reach it; '' means no links to it.
			'merchant_id'     => '', // The merchant whose fleet this site belongs to; '' means none.
			'toggles_key'     => '', // Public key that verifies signed toggles; '' means that none are obeyed.
			'sampling_url'    => '', // An additional source of rates, with the protocol of Jaeger's clients.
			'database'        => 'timed', // See Collect\Database.
			'slow_query_ms'   => 50,
			'slowest_queries' => 10,
			'n_plus_one'      => 10, // Number of executions of one statement in a request that is too high.
			'propagate'       => 'all', // Which outgoing requests carry `traceparent`: all, site, none.
			'server_timing'   => false,
			'finish_request'  => false,
			'query_string'    => false,
			'max_spans'       => 200,
			'profile_rate'    => 0.0, // 0 to 1: share of the recorded requests that Collect\Profile measures.
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
	 * Return whether the option exists. A must-use plugin is never activated, so its option may be missing.
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
	 * Read the settings again at the next access.
	 */
	public static function forget() {
		self::$values = null;
	}

	/**
	 * Return whether wp-config.php contains a setting.
	 *
	 * @param string $key One of those in defaults().
	 * @return bool
	 */
	public static function is_constant( $key ) {
		return defined( 'OTELWP_' . strtoupper( $key ) );
	}

	/**
	 * Return whether the current user may change a setting. On a network, only its administrators may change addresses:
	 * administrators of a single site could otherwise make this server connect to any of its own ports.
	 *
	 * @param string $key One of those in defaults().
	 * @return bool
	 */
	public static function may_change( $key ) {
		if ( self::is_constant( $key ) ) {
			return false;
		}
		if ( ! is_multisite() || ! in_array( $key, self::URLS, true ) || ! Request::is_http() ) {
			return true; // The command line is used by the administrator of this host.
		}
		// Before plugins are loaded, no user is logged in.
		return function_exists( 'wp_get_current_user' ) && current_user_can( 'manage_network_options' );
	}

	/**
	 * Return whether the settings belong to a network.
	 *
	 * @return bool
	 */
	public static function of_network() {
		if ( ! is_multisite() ) {
			return false;
		}
		if ( defined( 'OTELWP_ALWAYS' ) && OTELWP_ALWAYS && defined( 'OTELWP_MU' ) ) {
			return true;
		}
		$active = get_site_option( 'active_sitewide_plugins' );
		return isset( $active[ plugin_basename( OTELWP_FILE ) ] );
	}

	/**
	 * Save sanitized settings.
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
	 * Return the valid values of a form, and current values for the rest; report refused values.
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
				$value = self::valid( $key, $input[ $key ], $default );
				if ( $value !== $clean[ $key ] && ! self::may_change( $key ) ) {
					/* translators: %s: name of a setting */
					throw new \InvalidArgumentException( esc_html( sprintf( __( '%s: on a network, only a network administrator (manage_network_options) may change the addresses that OTelWP talks to.', 'otelwp' ), $key ) ) );
				}
				$clean[ $key ] = $value;
			} catch ( \InvalidArgumentException $problem ) {
				if ( function_exists( 'add_settings_error' ) ) {
					add_settings_error( self::OPTION, $key, $problem->getMessage() );
				}
			}
		}
		return $clean;
	}

	/**
	 * Return a value in the form in which it is saved.
	 *
	 * @param string $key      The setting.
	 * @param mixed  $value    The new value.
	 * @param mixed  $standard Its default, which determines the type.
	 * @return mixed
	 * @throws \InvalidArgumentException If it is invalid; the message says what is valid.
	 */
	private static function valid( $key, $value, $standard ) {
		if ( is_bool( $standard ) ) {
			return (bool) $value;
		}
		switch ( $key ) {
			case 'profile_rate':
				if ( ! is_numeric( $value ) || $value < 0 || $value > 1 ) {
					throw new \InvalidArgumentException( esc_html__( 'The profiling rate is a number from 0 (nothing) to 1 (every recorded request).', 'otelwp' ) );
				}
				return (float) $value;
			case 'sampling_rate':
				if ( ! is_numeric( $value ) || $value < 0 || $value > 1 ) {
					throw new \InvalidArgumentException( esc_html__( 'The sampling rate is a number from 0 (nothing) to 1 (every request).', 'otelwp' ) );
				}
				return (float) $value;
			case 'endpoints':
				return self::valid_endpoints( $value );
			case 'trusted_proxies':
				return self::valid_networks( $value );
			case 'agent_url':
			case 'sampling_url':
			case 'heartbeat_url':
				$url = trim( is_scalar( $value ) ? (string) $value : '' );
				if ( '' !== $url && null === Agent_Client::parse( $url ) ) {
					/* translators: %s: what was entered */
					throw new \InvalidArgumentException( esc_html( sprintf( __( '%s is not a valid address of an agent: write http://127.0.0.1:13133, https://host or unix:///run/otelwp/health.sock.', 'otelwp' ), $url ) ) );
				}
				if ( '' !== $url ) {
					self::check_destination( $url, $key );
				}
				return $url;
			case 'ui_url':
				$url = trim( is_scalar( $value ) ? (string) $value : '' );
				if ( '' !== $url && ! preg_match( '#^https?://[A-Za-z0-9.:_\[\]-]+(?:/[!-~]*)?$#D', $url ) ) {
					throw new \InvalidArgumentException( esc_html__( 'The page of the agent is an address for browsers, like http://127.0.0.1:13170.', 'otelwp' ) );
				}
				return $url;
			case 'merchant_id':
				$id = trim( is_scalar( $value ) ? (string) $value : '' );
				if ( ! preg_match( '/^[!-~]{0,63}$/D', $id ) ) {
					throw new \InvalidArgumentException( esc_html__( 'The id of the merchant has up to 63 letters, digits and signs, without spaces.', 'otelwp' ) );
				}
				return $id;
			case 'toggles_key':
				$key = trim( is_scalar( $value ) ? (string) $value : '' );
				if ( '' !== $key && ! Toggles::is_key( $key ) ) {
					throw new \InvalidArgumentException( esc_html__( 'The key for toggles is a public key of 43 characters, as the command otelwp-agent license keygen prints it.', 'otelwp' ) );
				}
				return $key;
			case 'database':
				return in_array( $value, array( 'timed', 'counted', 'off' ), true ) ? $value : $standard;
			case 'propagate':
				return in_array( $value, array( 'all', 'site', 'none' ), true ) ? $value : $standard;
			case 'service_name':
				return substr( sanitize_text_field( is_scalar( $value ) ? (string) $value : '' ), 0, 200 );
			default:
				$limits = array(
					'slow_query_ms'   => array( 1, 60000 ),
					'slowest_queries' => array( 0, 50 ),
					'n_plus_one'      => array( 2, 1000 ),
					'max_spans'       => array( 20, 1000 ),
				);
				return min( max( is_scalar( $value ) ? (int) $value : 0, $limits[ $key ][0] ), $limits[ $key ][1] );
		}
	}

	/**
	 * Return a list of endpoints from a list or from text with one in each line.
	 *
	 * @param mixed $value What was entered.
	 * @return string[]
	 * @throws \InvalidArgumentException If one of them is invalid.
	 */
	private static function valid_endpoints( $value ) {
		$lines = self::lines( $value );
		foreach ( $lines as $line ) {
			if ( null === Endpoint::parse( $line ) ) {
				/* translators: %s: what was entered */
				throw new \InvalidArgumentException( esc_html( sprintf( __( '%s is not a valid endpoint: write unixgram:///path, unix:///path, udp://127.0.0.1:4319 or http://127.0.0.1:4318.', 'otelwp' ), $line ) ) );
			}
			self::check_destination( $line, 'endpoints' );
		}
		if ( ! $lines ) {
			throw new \InvalidArgumentException( esc_html__( 'Without an endpoint nothing can be sent, so the endpoints were not changed. To send nothing, untick "Record requests".', 'otelwp' ) );
		}
		return array_slice( $lines, 0, 8 );
	}

	/**
	 * Return a list of networks from a list or from text with one in each line.
	 *
	 * @param mixed $value What was entered.
	 * @return string[]
	 * @throws \InvalidArgumentException When one of them is invalid.
	 */
	private static function valid_networks( $value ) {
		$lines = self::lines( $value );
		foreach ( $lines as $line ) {
			if ( ! Address::is_network( $line ) ) {
				/* translators: %s: what was entered */
				throw new \InvalidArgumentException( esc_html( sprintf( __( '%s is not a network: write addresses like 192.0.2.7 or fd00::7, or networks like 10.0.0.0/8.', 'otelwp' ), $line ) ) );
			}
		}
		return array_slice( $lines, 0, 64 );
	}

	/**
	 * Return the distinct lines of a list or of text.
	 *
	 * @param mixed $value What was entered.
	 * @return string[]
	 */
	private static function lines( $value ) {
		$lines = is_array( $value ) ? array_filter( $value, 'is_scalar' ) : preg_split( '/[\s,]+/', is_scalar( $value ) ? (string) $value : '' );
		return array_values( array_unique( array_filter( array_map( 'trim', array_map( 'strval', (array) $lines ) ), 'strlen' ) ) );
	}

	/**
	 * Check that the plugin may connect to an entered address.
	 *
	 * @param string $text    The address.
	 * @param string $setting The setting for it.
	 * @throws \InvalidArgumentException If it may not; the message says what to do.
	 */
	private static function check_destination( $text, $setting ) {
		$why = Destination::setting_refusal( $text );
		if ( '' !== $why ) {
			throw new \InvalidArgumentException( esc_html( $text . ': ' . Destination::explain( $why, $setting ) . '.' ) );
		}
	}

	/**
	 * Return the saved settings, completed by defaults.
	 *
	 * @return array
	 */
	private static function stored() {
		$saved = self::of_network() ? get_site_option( self::OPTION ) : get_option( self::OPTION );
		$all   = self::defaults();

		self::$stored = false !== $saved;
		if ( ! is_array( $saved ) ) {
			return $all;
		}
		foreach ( array_intersect_key( $saved, $all ) as $key => $value ) {
			if ( is_array( $all[ $key ] ) ? is_array( $value ) : is_scalar( $value ) ) {
				$all[ $key ] = is_array( $value ) ? array_filter( $value, 'is_string' ) : $value;
			}
		}
		return $all;
	}

	/**
	 * Return the effective settings: constants override the option, which overrides defaults.
	 *
	 * @return array
	 */
	private static function load() {
		$values = self::stored();
		foreach ( $values as $key => $value ) {
			$name = 'OTELWP_' . strtoupper( $key );
			if ( defined( $name ) ) {
				$constant       = constant( $name );
				$values[ $key ] = is_array( $value ) && is_string( $constant ) ? self::lines( $constant ) : $constant;
			}
		}
		return $values;
	}
}
