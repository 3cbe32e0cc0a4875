<?php
/**
 * The heartbeat.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Reports this site to the agent every few minutes, through WP-Cron, and saves the agent's answer.
 */
final class Heartbeat {

	const SCHEDULE = 'otelwp_five_minutes';

	const PATH = '/v1/plugins/heartbeat';

	/**
	 * Add an interval of five minutes.
	 *
	 * @param array $schedules The intervals of WP-Cron.
	 * @return array
	 */
	public static function schedules( $schedules ) {
		$schedules[ self::SCHEDULE ] = array(
			'interval' => 5 * MINUTE_IN_SECONDS,
			'display'  => 'OTelWP', // Not translated: plugins read it before translations may be loaded.
		);
		return $schedules;
	}

	/**
	 * Schedule it, unless it is scheduled. The sites of one host start at different times.
	 */
	public static function schedule() {
		if ( ! wp_next_scheduled( Plugin::HEARTBEAT ) ) {
			wp_schedule_event( time() + wp_rand( 10, 5 * MINUTE_IN_SECONDS ), self::SCHEDULE, Plugin::HEARTBEAT );
		}
	}

	/**
	 * Send a heartbeat and save the answer.
	 *
	 * @return string|\WP_Error Whether the agent answered the `heartbeat`, or only its `health`.
	 */
	public static function beat() {
		$url = (string) Settings::get( 'agent_url' );
		if ( '' === $url || ! Settings::get( 'enabled' ) ) {
			return new \WP_Error( 'otelwp_off', __( 'No agent is configured.', 'otelwp' ) );
		}
		$answer = Agent_Client::request( 'POST', $url, self::PATH, (string) wp_json_encode( self::report() ), self::authorization() );
		$how    = 'heartbeat';
		if ( ! is_wp_error( $answer ) && in_array( $answer['status'], array( 404, 405 ), true ) ) {
			$answer = Agent_Client::request( 'GET', $url, '/health' ); // This agent does not support heartbeats.
			$how    = 'health';
		}
		if ( is_wp_error( $answer ) ) {
			Agent::missed( $answer->get_error_message() );
			return $answer;
		}
		if ( 'heartbeat' === $how && 200 !== $answer['status'] ) {
			/* translators: %d: HTTP status code */
			$problem = new \WP_Error( 'otelwp_refused', sprintf( __( 'The agent answered the heartbeat with status %d.', 'otelwp' ), $answer['status'] ) );
			Agent::missed( $problem->get_error_message() );
			return $problem;
		}
		$reply = 'heartbeat' === $how ? json_decode( $answer['body'], true ) : array();
		$reply = is_array( $reply ) ? $reply : array();
		if ( ! isset( $reply['sampling'] ) ) {
			$reply['sampling'] = self::sampling();
		}
		Agent::learn( $reply, $answer['headers'] );
		return $how;
	}

	/**
	 * Return whether there is an API key.
	 *
	 * @return bool
	 */
	public static function has_key() {
		return '' !== self::key();
	}

	/**
	 * Return whether the API key is sent: only to an address in wp-config.php. Otherwise an attacker who can change an
	 * option could have the key sent elsewhere.
	 *
	 * @return bool
	 */
	public static function sends_key() {
		return self::has_key() && Settings::is_constant( 'agent_url' );
	}

	/**
	 * Return the header with the API key.
	 *
	 * @return array
	 */
	private static function authorization() {
		return self::sends_key() ? array( 'Authorization' => 'Bearer ' . self::key() ) : array();
	}

	/**
	 * Return the API key; '' if there is none.
	 *
	 * @return string
	 */
	private static function key() {
		return defined( 'OTELWP_API_KEY' ) ? (string) OTELWP_API_KEY : (string) getenv( 'OTELWP_API_KEY' );
	}

	/**
	 * Request a rate with the protocol of Jaeger's clients.
	 *
	 * @return array
	 */
	private static function sampling() {
		$url    = (string) Settings::get( 'sampling_url' );
		$answer = '' === $url ? null : Agent_Client::request( 'GET', $url, '?service=' . rawurlencode( Site::service_name() ), '', array(), 'sampling_url' );
		$reply  = is_array( $answer ) && 200 === $answer['status'] ? json_decode( $answer['body'], true ) : null;
		$found  = array();
		if ( isset( $reply['probabilisticSampling']['samplingRate'] ) ) {
			$found['rate'] = $reply['probabilisticSampling']['samplingRate'];
		}
		if ( isset( $reply['rateLimitingSampling']['maxTracesPerSecond'] ) ) {
			$found['traces_per_second'] = $reply['rateLimitingSampling']['maxTracesPerSecond'];
		}
		return $found;
	}

	/**
	 * Return the report to the agent: versions and limits, no personal data.
	 *
	 * @return array
	 */
	private static function report() {
		$report = array(
			'cms'               => class_exists( 'WooCommerce', false ) ? 'woocommerce' : 'wordpress',
			'service_name'      => Site::service_name(),
			'plugin_version'    => OTELWP_VERSION,
			'sdk_language'      => 'php',
			'environment'       => wp_get_environment_type(),
			'php_version'       => PHP_VERSION,
			'wordpress_version' => get_bloginfo( 'version' ),
			'sampling_rate'     => (float) Settings::get( 'sampling_rate' ),
			'server_info'       => array(
				'server_software'    => Request::server( 'SERVER_SOFTWARE' ),
				'max_execution_time' => (string) ini_get( 'max_execution_time' ),
				'memory_limit'       => (string) ini_get( 'memory_limit' ),
			),
		);
		$counts = Sender::counts();
		return null === $counts ? $report : $report + array( 'traces' => $counts );
	}
}
