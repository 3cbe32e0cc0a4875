<?php
/**
 * The project's first plugin, for comparison: the same hooks, the same calls, the same body.
 *
 * It starts a trace of one span at `init`, and at `shutdown` posts Jaeger-like JSON through WordPress's HTTP client with
 * `blocking => false` and a timeout of 0.5 s. All requests are sampled, as with the current plugin here.
 *
 * @package Otelwp
 */

namespace WPOtel;

/**
 * Sends one span per request.
 */
class Founding_Plugin {

	/**
	 * Settings.
	 *
	 * @var array
	 */
	private $config;

	/**
	 * The current trace, or null before it starts.
	 *
	 * @var array|null
	 */
	private $current_trace;

	/**
	 * Read the settings and register the hooks.
	 */
	public function __construct() {
		$this->config = array(
			'enabled'       => get_option( 'wpotel_enabled', true ),
			'endpoint'      => get_option( 'wpotel_endpoint', 'http://localhost:14268/api/traces' ),
			'service_name'  => get_option( 'wpotel_service_name', wp_parse_url( home_url(), PHP_URL_HOST ) ),
			'sampling_rate' => get_option( 'wpotel_sampling_rate', 0.1 ),
			'environment'   => wp_get_environment_type(),
		);
		add_action( 'init', array( $this, 'start_trace' ), 1 );
		add_action( 'shutdown', array( $this, 'end_trace' ), 9999 );
	}

	/**
	 * Start the trace.
	 */
	public function start_trace() {
		if ( wp_rand( 1, 1000 ) > ( $this->config['sampling_rate'] * 1000 ) ) {
			return;
		}
		$this->current_trace = array(
			'traceID' => bin2hex( random_bytes( 16 ) ),
			'spans'   => array(
				array(
					'traceID'       => bin2hex( random_bytes( 16 ) ),
					'spanID'        => bin2hex( random_bytes( 8 ) ),
					'operationName' => 'wordpress.request',
					'startTime'     => microtime( true ) * 1000000,
					'tags'          => array(
						array(
							'key'   => 'http.method',
							'value' => isset( $_SERVER['REQUEST_METHOD'] ) ? $_SERVER['REQUEST_METHOD'] : '',
						),
						array(
							'key'   => 'http.url',
							'value' => isset( $_SERVER['REQUEST_URI'] ) ? $_SERVER['REQUEST_URI'] : '',
						),
						array(
							'key'   => 'http.user_agent',
							'value' => isset( $_SERVER['HTTP_USER_AGENT'] ) ? $_SERVER['HTTP_USER_AGENT'] : '',
						),
					),
					'process'       => array(
						'serviceName' => $this->config['service_name'],
						'tags'        => array(
							array(
								'key'   => 'environment',
								'value' => $this->config['environment'],
							),
						),
					),
				),
			),
		);
	}

	/**
	 * Send the trace.
	 */
	public function end_trace() {
		if ( ! $this->current_trace ) {
			return;
		}
		$span             = &$this->current_trace['spans'][0];
		$span['duration'] = ( microtime( true ) * 1000000 ) - $span['startTime'];
		$span['tags'][]   = array(
			'key'   => 'http.status_code',
			'value' => http_response_code(),
		);
		wp_remote_post(
			$this->config['endpoint'],
			array(
				'body'     => wp_json_encode( array( 'data' => array( $this->current_trace ) ) ),
				'headers'  => array( 'Content-Type' => 'application/json' ),
				'timeout'  => 0.5,
				'blocking' => false,
			)
		);
	}
}

new Founding_Plugin();
