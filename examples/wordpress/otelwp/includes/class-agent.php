<?php
/**
 * The last answer of the agent.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * The agent's requests (rate, budget, pause, signed toggles) and licence (tier, features), from its last heartbeat answer.
 *
 * They are valid for the time in the answer, or half an hour; after that only the site's own settings apply. The plugin
 * restricts nothing by tier: the agent does that, the plugin only shows the licence.
 */
final class Agent {

	const OPTION = 'otelwp_agent';

	const VALID_FOR = 1800; // Seconds. WP-Cron runs only when a visitor requests a page: a heartbeat may be late.

	const TIERS = array( 'free', 'pro', 'enterprise' );

	/**
	 * The saved state of the last answer, with its site; null if it was not read yet.
	 *
	 * @var array|null
	 */
	private static $state = null;

	/**
	 * Return the saved state of the last answer.
	 *
	 * @return array
	 */
	public static function state() {
		$site = get_current_blog_id();
		if ( null === self::$state || $site !== self::$state[0] ) {
			$state       = get_option( self::OPTION );
			self::$state = array( $site, is_array( $state ) ? $state : array() );
		}
		return self::$state[1];
	}

	/**
	 * Delete the saved state.
	 */
	public static function forget() {
		self::save( array() );
	}

	/**
	 * Save the state of the agent.
	 *
	 * @param array $state All of it.
	 */
	private static function save( array $state ) {
		update_option( self::OPTION, $state );
		self::$state = null;
	}

	/**
	 * Return a request of the agent that is still valid, or null.
	 *
	 * @param string $key `rate`, `traces_per_second` or `paused`.
	 * @return mixed
	 */
	public static function wish( $key ) {
		$state = self::state();
		return isset( $state[ $key ], $state['until'] ) && $state['until'] > time() ? $state[ $key ] : null;
	}

	/**
	 * Return whether a signed toggle is on. It is off after the time that was signed with it, also if the collector does
	 * not answer any more.
	 *
	 * @param string $name One of Toggles::KEYS.
	 * @return bool
	 */
	public static function toggle( $name ) {
		$state = self::state();
		return isset( $state['toggles'], $state['toggles_until'] ) && $state['toggles_until'] > time() && in_array( $name, $state['toggles'], true );
	}

	/**
	 * Return whether the agent or the operator wants nothing to be recorded.
	 *
	 * @return bool
	 */
	public static function is_paused() {
		return self::wish( 'paused' ) || self::toggle( 'block_plugin' ); // Pages do not load the class Toggles.
	}

	/**
	 * Return the tier of the agent's licence: `free` unless the agent has sent another.
	 *
	 * @return string
	 */
	public static function tier() {
		$tier = self::wish( 'tier' );
		return null === $tier ? 'free' : $tier;
	}

	/**
	 * Return the features that the agent's licence contains.
	 *
	 * @return string[]
	 */
	public static function features() {
		$features = self::wish( 'features' );
		return null === $features ? array() : $features;
	}

	/**
	 * Return the share of requests to record: the setting, or less if the agent requests less.
	 *
	 * @return float
	 */
	public static function sampling_rate() {
		$rate = (float) Settings::get( 'sampling_rate' );
		$wish = self::wish( 'rate' );
		if ( null !== $wish ) {
			$rate = min( $rate, $wish );
		}
		if ( self::toggle( 'rate_limit' ) ) {
			$rate = min( $rate, Toggles::SLOW_RATE );
		}
		/**
		 * Filters the share of requests that are recorded. Runs when the plugin loads: only must-use plugins and
		 * plugins that load earlier can take part.
		 *
		 * @param float $rate 0 to 1.
		 */
		return (float) apply_filters( 'otelwp_sampling_rate', $rate );
	}

	/**
	 * Save an answer; whatever it does not contain is deleted.
	 *
	 * @param array $reply   The body, decoded.
	 * @param array $headers Of the answer, names in lower case.
	 * @param array $toggles Verified toggles: `{on, until}`.
	 */
	public static function learn( array $reply, array $headers = array(), array $toggles = array() ) {
		$state     = self::read( $reply, $headers );
		$next      = isset( $reply['next_heartbeat_seconds'] ) && is_numeric( $reply['next_heartbeat_seconds'] ) ? (int) $reply['next_heartbeat_seconds'] : 0;
		$valid_for = isset( $reply['valid_for'] ) && is_numeric( $reply['valid_for'] ) ? (int) $reply['valid_for'] : max( self::VALID_FOR, $next + self::VALID_FOR );
		if ( ! empty( $toggles['on'] ) ) {
			$state['toggles']       = $toggles['on'];
			$state['toggles_until'] = $toggles['until'];
		}
		$state['at']    = time();
		$state['until'] = time() + min( max( $valid_for, 60 ), DAY_IN_SECONDS );
		self::save( $state );
	}

	/**
	 * Replace the sampling that an earlier answer requested.
	 *
	 * @param array $sampling `{rate, traces_per_second}`, any of it.
	 */
	public static function sample( array $sampling ) {
		$keys = array( 'rate', 'traces_per_second' );
		$new  = array_intersect_key( self::read( array( 'sampling' => $sampling ), array() ), array_flip( $keys ) );
		if ( '' !== (string) Settings::get( 'sampling_url' ) ) {
			self::save( $new + array_diff_key( self::state(), array_flip( $keys ) ) );
		}
	}

	/**
	 * Record that the agent did not answer. Its last answer stays valid until its time is over.
	 *
	 * @param string $problem Why.
	 */
	public static function missed( $problem ) {
		$state              = self::state();
		$state['problem']   = $problem;
		$state['missed_at'] = time();
		self::save( $state );
	}

	/**
	 * Return the valid parts of an answer.
	 *
	 * @param array $reply   `{tier, features, sampling: {rate, traces_per_second}, toggles: {pause}}`, any of it.
	 * @param array $headers `x-otelwp-tier`, `x-otelwp-sampling-rate`, `x-otelwp-traces-per-second`, any of them.
	 * @return array
	 */
	private static function read( array $reply, array $headers ) {
		$state    = array();
		$sampling = isset( $reply['sampling'] ) && is_array( $reply['sampling'] ) ? $reply['sampling'] : array();
		$toggles  = isset( $reply['toggles'] ) && is_array( $reply['toggles'] ) ? $reply['toggles'] : array();
		$features = isset( $reply['features'] ) && is_array( $reply['features'] ) ? $reply['features'] : array();
		$wanted   = array(
			'rate'              => isset( $sampling['rate'] ) ? $sampling['rate'] : self::header( $headers, 'x-otelwp-sampling-rate' ),
			'traces_per_second' => isset( $sampling['traces_per_second'] ) ? $sampling['traces_per_second'] : self::header( $headers, 'x-otelwp-traces-per-second' ),
		);
		if ( is_numeric( $wanted['rate'] ) && $wanted['rate'] >= 0 && $wanted['rate'] <= 1 ) {
			$state['rate'] = (float) $wanted['rate'];
		}
		if ( is_numeric( $wanted['traces_per_second'] ) && $wanted['traces_per_second'] > 0 ) {
			$state['traces_per_second'] = (float) $wanted['traces_per_second'];
		}
		$tier = isset( $reply['tier'] ) ? $reply['tier'] : self::header( $headers, 'x-otelwp-tier' );
		if ( in_array( $tier, self::TIERS, true ) ) {
			$state['tier'] = $tier;
		}
		$state['features'] = array();
		foreach ( array_slice( array_values( array_filter( $features, 'is_string' ) ), 0, 50 ) as $feature ) {
			$state['features'][] = sanitize_key( substr( $feature, 0, 64 ) ); // Limited, because every page loads the option.
		}
		if ( ! empty( $toggles['pause'] ) ) {
			$state['paused'] = true;
		}
		return $state;
	}

	/**
	 * Return a header, or null.
	 *
	 * @param array  $headers Names in lower case.
	 * @param string $name    In lower case.
	 * @return string|null
	 */
	private static function header( array $headers, $name ) {
		return isset( $headers[ $name ] ) ? $headers[ $name ] : null;
	}
}
