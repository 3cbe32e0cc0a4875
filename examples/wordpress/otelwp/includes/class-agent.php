<?php
/**
 * What the agent said last.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * The agent's wishes (rate, budget, pause) and licence (tier, features), from its last heartbeat reply.
 *
 * They hold for as long as the reply says, or half an hour; after that the site's own settings stand alone. The plugin
 * locks nothing by tier: what a licence allows is the agent's to do or to refuse, the plugin only shows it.
 */
final class Agent {

	const OPTION = 'otelwp_agent';

	const VALID_FOR = 1800; // Seconds. WP-Cron runs when somebody visits: a heartbeat may well be late.

	const TIERS = array( 'free', 'pro', 'enterprise' );

	/**
	 * What was saved of the last reply, and of which site; null before it was asked for.
	 *
	 * @var array|null
	 */
	private static $state = null;

	/**
	 * Return what was saved of the last reply.
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
	 * Forget the last reply.
	 */
	public static function forget() {
		self::save( array() );
	}

	/**
	 * Save what is to be known of the agent.
	 *
	 * @param array $state All of it.
	 */
	private static function save( array $state ) {
		update_option( self::OPTION, $state );
		self::$state = null;
	}

	/**
	 * Return a wish of the agent that still holds, or null.
	 *
	 * @param string $key `rate`, `traces_per_second` or `paused`.
	 * @return mixed
	 */
	public static function wish( $key ) {
		$state = self::state();
		return isset( $state[ $key ], $state['until'] ) && $state['until'] > time() ? $state[ $key ] : null;
	}

	/**
	 * Return the tier of the agent's licence: `free` as long as the agent has not told another.
	 *
	 * @return string
	 */
	public static function tier() {
		$tier = self::wish( 'tier' );
		return null === $tier ? 'free' : $tier;
	}

	/**
	 * Return the features that the agent's licence names.
	 *
	 * @return string[]
	 */
	public static function features() {
		$features = self::wish( 'features' );
		return null === $features ? array() : $features;
	}

	/**
	 * Return the share of requests to record: the setting, or less if the agent wishes.
	 *
	 * @return float
	 */
	public static function sampling_rate() {
		$rate = (float) Settings::get( 'sampling_rate' );
		$wish = self::wish( 'rate' );
		if ( null !== $wish ) {
			$rate = min( $rate, $wish );
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
	 * Save a reply; what it does not say is forgotten.
	 *
	 * @param array $reply   The body, decoded.
	 * @param array $headers Of the answer, names in lower case.
	 */
	public static function learn( array $reply, array $headers = array() ) {
		$state          = self::read( $reply, $headers );
		$valid_for      = isset( $reply['valid_for'] ) && is_numeric( $reply['valid_for'] ) ? (int) $reply['valid_for'] : self::VALID_FOR;
		$state['at']    = time();
		$state['until'] = time() + min( max( $valid_for, 60 ), DAY_IN_SECONDS );
		self::save( $state );
	}

	/**
	 * Note that the agent did not answer. What it said before holds until its time is over.
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
	 * Return what is valid of a reply.
	 *
	 * @param array $reply   `{tier, features, sampling: {rate, traces_per_second}, toggles: {pause, block_plugin}}`, any of it.
	 * @param array $headers `x-otelwp-tier`, `x-otelwp-sampling-rate`, `x-otelwp-traces-per-second`, any of them.
	 * @return array
	 */
	private static function read( array $reply, array $headers ) {
		$state    = array();
		$sampling = isset( $reply['sampling'] ) && is_array( $reply['sampling'] ) ? $reply['sampling'] : array();
		$toggles  = isset( $reply['toggles'] ) && is_array( $reply['toggles'] ) ? $reply['toggles'] : array();
		$features = isset( $reply['features'] ) && is_array( $reply['features'] ) ? $reply['features'] : array();
		$told     = array(
			'rate'              => isset( $sampling['rate'] ) ? $sampling['rate'] : self::header( $headers, 'x-otelwp-sampling-rate' ),
			'traces_per_second' => isset( $sampling['traces_per_second'] ) ? $sampling['traces_per_second'] : self::header( $headers, 'x-otelwp-traces-per-second' ),
		);
		if ( is_numeric( $told['rate'] ) && $told['rate'] >= 0 && $told['rate'] <= 1 ) {
			$state['rate'] = (float) $told['rate'];
		}
		if ( is_numeric( $told['traces_per_second'] ) && $told['traces_per_second'] > 0 ) {
			$state['traces_per_second'] = (float) $told['traces_per_second'];
		}
		$tier = isset( $reply['tier'] ) ? $reply['tier'] : self::header( $headers, 'x-otelwp-tier' );
		if ( in_array( $tier, self::TIERS, true ) ) {
			$state['tier'] = $tier;
		}
		$state['features'] = array();
		foreach ( array_slice( array_values( array_filter( $features, 'is_string' ) ), 0, 50 ) as $feature ) {
			$state['features'][] = sanitize_key( substr( $feature, 0, 64 ) ); // Every page loads the option.
		}
		if ( ! empty( $toggles['pause'] ) || ! empty( $toggles['block_plugin'] ) ) {
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
