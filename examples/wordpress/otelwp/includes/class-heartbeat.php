<?php
/**
 * The heartbeat.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Reports this site to the agent or a collector, through WP-Cron, and saves the answer.
 *
 * WP-Cron calls it every five minutes; a collector may want heartbeats less often.
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
	 * Send a heartbeat if it is due, then the saved events. WP-Cron calls it.
	 */
	public static function run() {
		$fleet = Fleet::is_configured();
		if ( $fleet && Fleet::state()['next'] > time() ) {
			$how = 'heartbeat'; // The last one was answered, and the next one is not due.
			Agent::sample( self::sampling() );
		} else {
			$how = self::beat();
		}
		if ( $fleet && 'heartbeat' === $how && ! Agent::is_paused() ) {
			$sent = Events::send();
			if ( is_wp_error( $sent ) ) {
				Debug_Log::write( 'events not sent: ' . $sent->get_error_message() );
			}
		}
	}

	/**
	 * Send a heartbeat and save the answer.
	 *
	 * @return string|\WP_Error Whether the agent answered the `heartbeat`, or only its `health`.
	 */
	public static function beat() {
		$url = self::url();
		if ( '' === $url || ! Settings::get( 'enabled' ) ) {
			return new \WP_Error( 'otelwp_off', __( 'No agent is configured.', 'otelwp' ) );
		}
		$fleet  = Fleet::is_configured();
		$seen   = $fleet ? Fleet::state()['acknowledged'] : array();
		$answer = self::post( self::PATH, self::report( $seen ) );
		$how    = 'heartbeat';
		if ( 'agent_url' === self::setting() && ! is_wp_error( $answer ) && in_array( $answer['status'], array( 404, 405 ), true ) ) {
			$answer = Agent_Client::request( 'GET', $url, '/health' ); // This agent does not support heartbeats.
			$how    = 'health';
		}
		if ( ! is_wp_error( $answer ) && 'heartbeat' === $how && 200 !== $answer['status'] ) {
			if ( $fleet ) {
				Fleet::postpone( $answer['headers'] );
			}
			$answer = self::refusal( $answer );
		}
		if ( is_wp_error( $answer ) ) {
			Agent::missed( $answer->get_error_message() );
			Debug_Log::write( 'heartbeat failed: ' . $answer->get_error_message() );
			return $answer;
		}
		$reply = 'heartbeat' === $how ? json_decode( $answer['body'], true ) : array();
		$reply = is_array( $reply ) ? $reply : array();
		if ( ! isset( $reply['sampling'] ) ) {
			$reply['sampling'] = self::sampling();
		}
		$toggles = $fleet && 'heartbeat' === $how ? Fleet::learn( $reply, $seen ) : array();
		Agent::learn( $reply, $answer['headers'], $toggles );
		Debug_Log::write( 'heartbeat answered by ' . Redact::address( $url ) );
		return $how;
	}

	/**
	 * Return the address that heartbeats and events are sent to; '' if there is none.
	 *
	 * @return string
	 */
	public static function url() {
		return (string) Settings::get( self::setting() );
	}

	/**
	 * Send a request to that address.
	 *
	 * @param string $path Of the request.
	 * @param array  $body Of the request, before it is encoded.
	 * @return array{status: int, headers: array, body: string}|\WP_Error
	 */
	public static function post( $path, array $body ) {
		return Agent_Client::request( 'POST', self::url(), $path, (string) wp_json_encode( $body ), self::authorization(), self::setting() );
	}

	/**
	 * Return the error for an answer that refuses a request, with the reason if the answer contains one (RFC 9457).
	 *
	 * @param array $answer From post().
	 * @return \WP_Error
	 */
	public static function refusal( array $answer ) {
		/* translators: %d: HTTP status code */
		$message = sprintf( __( 'The agent answered the heartbeat with status %d.', 'otelwp' ), $answer['status'] );
		$problem = json_decode( $answer['body'], true );
		foreach ( array( isset( $problem['detail'] ) ? $problem['detail'] : '', isset( $problem['errors'][0]['detail'] ) ? $problem['errors'][0]['detail'] : '' ) as $detail ) {
			$message .= is_string( $detail ) && '' !== $detail ? ' ' . mb_substr( sanitize_text_field( $detail ), 0, 200 ) . '.' : '';
		}
		return new \WP_Error( 'otelwp_refused', $message );
	}

	/**
	 * Return the name of the setting with that address.
	 *
	 * @return string
	 */
	public static function setting() {
		return '' === (string) Settings::get( 'heartbeat_url' ) ? 'agent_url' : 'heartbeat_url';
	}

	/**
	 * Return the name of the constant that the API key needs: the one with the address that heartbeats are sent to.
	 *
	 * @return string
	 */
	public static function constant() {
		return 'OTELWP_' . strtoupper( self::setting() );
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
		return self::has_key() && Settings::is_constant( self::setting() );
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
	 * @param string[] $acknowledged Ids of notices that an administrator has seen.
	 * @return array
	 */
	private static function report( array $acknowledged ) {
		$report = Fleet::identity() + array(
			'service_name'      => Site::service_name(),
			'plugin_version'    => OTELWP_VERSION,
			'sdk_language'      => 'php',
			'php_version'       => PHP_VERSION,
			'wordpress_version' => get_bloginfo( 'version' ),
			'sampling_rate'     => (float) Settings::get( 'sampling_rate' ),
			'server_info'       => array(
				'server_software'    => substr( (string) preg_replace( '/[^ -~]/', '', Request::server( 'SERVER_SOFTWARE' ) ), 0, 200 ),
				'max_execution_time' => (string) ini_get( 'max_execution_time' ),
				'memory_limit'       => (string) ini_get( 'memory_limit' ),
			),
		);
		if ( Fleet::is_configured() ) {
			$now     = microtime( true );
			$report += array(
				'errors_last_hour' => Events::errors_last_hour(),
				'acknowledged'     => $acknowledged,
				'sent_at'          => gmdate( 'Y-m-d\TH:i:s', (int) $now ) . sprintf( '.%06dZ', 1e6 * ( $now - (int) $now ) ),
			);
		}
		$counts = Sender::counts();
		return null === $counts ? $report : $report + array( 'traces' => $counts );
	}
}
