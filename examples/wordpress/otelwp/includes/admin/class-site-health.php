<?php
/**
 * Site Health.
 *
 * @package Otelwp
 */

namespace Otelwp\Admin;

use Otelwp\Agent;
use Otelwp\Agent_Client;
use Otelwp\Breaker;
use Otelwp\Destination;
use Otelwp\Endpoint;
use Otelwp\Fleet;
use Otelwp\Heartbeat;
use Otelwp\Redact;
use Otelwp\Sender;
use Otelwp\Settings;
use Otelwp\Site;
use Otelwp\Toggles;
use Otelwp\Unix_Socket;

defined( 'ABSPATH' ) || exit;

/**
 * Two tests, of the endpoints and of the agent's health, and a section of the information page.
 */
final class Site_Health {

	/**
	 * Register the hooks.
	 */
	public static function register() {
		add_filter( 'site_status_tests', array( __CLASS__, 'tests' ) );
		add_filter( 'debug_information', array( __CLASS__, 'information' ) );
	}

	/**
	 * Add the tests.
	 *
	 * @param array $tests Of WordPress.
	 * @return array
	 */
	public static function tests( $tests ) {
		$tests['direct']['otelwp_endpoints'] = array(
			'label' => __( 'Traces are sent', 'otelwp' ),
			'test'  => array( __CLASS__, 'test_endpoints' ),
		);
		$tests['async']['otelwp_agent']      = array(
			'label'             => __( 'The telemetry agent is healthy', 'otelwp' ),
			'test'              => rest_url( 'otelwp/v1/agent' ),
			'has_rest'          => true,
			'async_direct_test' => array( __CLASS__, 'test_agent' ),
		);
		return $tests;
	}

	/**
	 * Test whether at least one endpoint works.
	 *
	 * @return array
	 */
	public static function test_endpoints() {
		if ( PHP_INT_SIZE < 8 ) {
			return self::result( 'otelwp_endpoints', 'recommended', __( 'OTelWP needs a 64-bit PHP', 'otelwp' ), __( 'It records nothing on this server: its times do not fit into the integers of a 32-bit PHP.', 'otelwp' ) );
		}
		if ( ! Settings::get( 'enabled' ) ) {
			return self::result( 'otelwp_endpoints', 'good', __( 'Recording of traces is disabled', 'otelwp' ), __( 'OTelWP is active, but disabled in its settings.', 'otelwp' ) );
		}
		$failing  = ( new Breaker() )->failing();
		$problems = array();
		$refused  = false;
		$works    = '';
		foreach ( (array) Settings::get( 'endpoints' ) as $text ) {
			$shown    = Redact::address( $text );
			$endpoint = Endpoint::parse( $text, Settings::is_constant( 'endpoints' ) );
			$refusal  = null === $endpoint ? __( 'the endpoint is invalid', 'otelwp' ) : $endpoint->refusal();
			if ( '' !== $refusal ) {
				$refused            = $refused || Unix_Socket::ABSENT !== $refusal;
				$problems[ $shown ] = Destination::explain( $refusal, 'endpoints' );
				continue;
			}
			$why = isset( $failing[ $text ] ) ? $failing[ $text ]['why'] : $endpoint->probe();
			if ( '/' === $endpoint->address[0] && ! is_writable( $endpoint->address ) ) { // phpcs:ignore WordPress.WP.AlternativeFunctions -- a socket.
				$problems[ $shown ] = __( 'PHP may not write to it: its group should be that of the web server', 'otelwp' );
			} elseif ( '' !== $why ) {
				$problems[ $shown ] = Destination::explain( $why, 'endpoints' );
			} else {
				$works = $shown;
				break;
			}
		}
		if ( '' !== $works ) {
			/* translators: %s: an endpoint */
			$description = sprintf( __( 'They are sent to %s, after the response.', 'otelwp' ), $works );
			if ( $refused ) {
				return self::result( 'otelwp_endpoints', 'recommended', __( 'OTelWP refuses an endpoint', 'otelwp' ), $description . self::listed( $problems ) );
			}
			return self::result( 'otelwp_endpoints', 'good', __( 'Traces are sent', 'otelwp' ), $description );
		}
		$description = __( 'No endpoint accepts the traces of OTelWP. Visitors are not affected, but all traces are lost.', 'otelwp' );
		return self::result( 'otelwp_endpoints', 'recommended', __( 'Traces are not sent', 'otelwp' ), $description . self::listed( $problems ) );
	}

	/**
	 * Return sentences about endpoints.
	 *
	 * @param array<string, string> $problems Endpoint => what is wrong with it.
	 * @return string
	 */
	private static function listed( array $problems ) {
		$sentences = '';
		foreach ( $problems as $text => $why ) {
			$sentences .= ' ' . $text . ': ' . $why . '.';
		}
		return $sentences;
	}

	/**
	 * Test whether the agent is healthy.
	 *
	 * @return array
	 */
	public static function test_agent() {
		$url = (string) Settings::get( 'agent_url' );
		if ( '' === $url ) {
			return self::result( 'otelwp_agent', 'good', __( 'The telemetry agent is not tested', 'otelwp' ), __( 'The settings of OTelWP contain no address of an agent.', 'otelwp' ) );
		}
		$answer = Agent_Client::request( 'GET', $url, '/health' );
		if ( is_wp_error( $answer ) ) {
			/* translators: 1: address, 2: why */
			return self::result( 'otelwp_agent', 'recommended', __( 'The telemetry agent does not answer', 'otelwp' ), sprintf( __( 'The request to %1$s failed: %2$s. Traces may still be accepted if only this address is wrong.', 'otelwp' ), Redact::address( $url ), $answer->get_error_message() ) );
		}
		$body   = json_decode( $answer['body'], true );
		$status = isset( $body['status'] ) && is_string( $body['status'] ) ? substr( sanitize_text_field( $body['status'] ), 0, 100 ) : (string) $answer['status'];
		if ( Heartbeat::has_key() && ! Heartbeat::sends_key() ) {
			/* translators: %s: name of a constant */
			return self::result( 'otelwp_agent', 'recommended', __( 'The API key of OTelWP is not sent', 'otelwp' ), sprintf( __( 'OTELWP_API_KEY is set, but the address of the agent is in the database, where an attacker who can change an option could redirect the key. Define %s in wp-config.php as well.', 'otelwp' ), Heartbeat::constant() ) );
		}
		if ( 200 === $answer['status'] && 'degraded' !== $status ) {
			/* translators: %s: a word like "healthy" */
			return self::result( 'otelwp_agent', 'good', __( 'The telemetry agent is healthy', 'otelwp' ), sprintf( __( 'It reports the status: %s.', 'otelwp' ), $status ) );
		}
		/* translators: %s: a word like "unhealthy" */
		return self::result( 'otelwp_agent', 'recommended', __( 'The telemetry agent is not healthy', 'otelwp' ), sprintf( __( 'It reports the status: %s. See its log for details.', 'otelwp' ), $status ) );
	}

	/**
	 * Add the plugin's section.
	 *
	 * @param array $information Of WordPress.
	 * @return array
	 */
	public static function information( $information ) {
		$state   = Agent::state();
		$failing = ( new Breaker() )->failing();
		$counts  = Sender::counts();
		$never   = __( 'never', 'otelwp' );
		$fields  = array(
			'version'       => array( __( 'Version', 'otelwp' ), OTELWP_VERSION . ( defined( 'OTELWP_MU' ) ? ' (must-use)' : '' ) ),
			'service_name'  => array( __( 'Service name', 'otelwp' ), Site::service_name() ),
			'enabled'       => array( __( 'Record requests', 'otelwp' ), Settings::get( 'enabled' ) ? __( 'Yes', 'otelwp' ) : __( 'No', 'otelwp' ) ),
			'sampling_rate' => array( __( 'Sampling rate', 'otelwp' ), (string) Agent::sampling_rate() ),
			'endpoints'     => array( __( 'Endpoints', 'otelwp' ), implode( ', ', array_map( array( Redact::class, 'address' ), (array) Settings::get( 'endpoints' ) ) ) ),
			'agent_url'     => array( __( 'Agent', 'otelwp' ), '' === (string) Settings::get( 'agent_url' ) ? __( 'none', 'otelwp' ) : Redact::address( (string) Settings::get( 'agent_url' ) ) ),
			'api_key'       => array( __( 'API key', 'otelwp' ), Heartbeat::has_key() ? ( Heartbeat::sends_key() ? __( 'set', 'otelwp' ) : __( 'set and not sent', 'otelwp' ) ) : __( 'none', 'otelwp' ) ),
			'failing'       => array( __( 'Failing endpoints', 'otelwp' ), $failing ? implode( ', ', array_map( array( Redact::class, 'address' ), array_keys( $failing ) ) ) : __( 'none', 'otelwp' ) ),
			'agent'         => array( __( 'Agent answered last', 'otelwp' ), isset( $state['at'] ) ? gmdate( 'c', $state['at'] ) : $never ),
			'tier'          => array( __( 'Licence', 'otelwp' ), Agent::tier() ),
			'installation'  => array( __( 'Installation', 'otelwp' ), Fleet::is_configured() ? Fleet::state()['installation'] : __( 'none', 'otelwp' ) ),
			'toggles'       => array( __( 'Toggles of the operator', 'otelwp' ), implode( ', ', array_filter( Toggles::KEYS, array( Agent::class, 'toggle' ) ) ) ),
			'apcu'          => array( __( 'APCu', 'otelwp' ), Breaker::has_apcu() ? __( 'Yes', 'otelwp' ) : __( 'No', 'otelwp' ) ),
			'traces'        => array( __( 'Traces sent and lost', 'otelwp' ), null === $counts ? __( 'unknown', 'otelwp' ) : $counts['sent'] . ', ' . $counts['lost'] ),
		);

		$information['otelwp'] = array(
			'label'  => __( 'OTelWP', 'otelwp' ),
			'fields' => array(),
		);
		foreach ( $fields as $name => $field ) {
			$information['otelwp']['fields'][ $name ] = array(
				'label' => $field[0],
				'value' => $field[1],
			);
		}
		return $information;
	}

	/**
	 * Return a result in the format of Site Health.
	 *
	 * @param string $test        Its name.
	 * @param string $status      `good` or `recommended`: a site without traces works as well as one with them.
	 * @param string $label       What was found.
	 * @param string $description Its explanation.
	 * @return array
	 */
	private static function result( $test, $status, $label, $description ) {
		$link = Settings::of_network() ? network_admin_url( 'settings.php?page=otelwp' ) : admin_url( 'options-general.php?page=otelwp' );
		return array(
			'label'       => $label,
			'status'      => $status,
			'badge'       => array(
				'label' => __( 'Performance', 'otelwp' ),
				'color' => 'blue',
			),
			'description' => '<p>' . esc_html( $description ) . '</p>',
			'actions'     => 'good' === $status ? '' : '<p><a href="' . esc_url( $link ) . '">' . esc_html__( 'Settings of OTelWP', 'otelwp' ) . '</a></p>',
			'test'        => $test,
		);
	}
}
