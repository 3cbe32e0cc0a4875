<?php
/**
 * WP-CLI.
 *
 * @package Otelwp
 */

namespace Otelwp\Cli;

use Otelwp\Agent;
use Otelwp\Breaker;
use Otelwp\Destination;
use Otelwp\Endpoint;
use Otelwp\Fleet;
use Otelwp\Heartbeat;
use Otelwp\Sender;
use Otelwp\Settings;
use Otelwp\Site;
use Otelwp\Test_Trace;
use Otelwp\Toggles;

defined( 'ABSPATH' ) || exit;

/**
 * Shows and tests the connection from this site to the agent.
 */
final class Command {

	/**
	 * Shows the state of the settings, the endpoints and the agent.
	 *
	 * @param array $args  None.
	 * @param array $assoc Options.
	 */
	public function status( $args, $assoc ) {
		$state = Agent::state();
		$rows  = array(
			'enabled'       => Settings::get( 'enabled' ) ? 'yes' : 'no',
			'service name'  => Site::service_name(),
			'sampling rate' => (string) Agent::sampling_rate(),
			'agent'         => isset( $state['problem'] ) ? $state['problem'] : ( isset( $state['at'] ) ? 'answered at ' . gmdate( 'c', $state['at'] ) : 'never asked' ),
			'tier'          => Agent::tier(),
			'API key'       => Heartbeat::has_key() ? ( Heartbeat::sends_key() ? 'sent to the agent' : 'not sent: define ' . Heartbeat::constant() . ' in wp-config.php' ) : 'none',
			'features'      => implode( ', ', Agent::features() ),
			'paused'        => Agent::is_paused() ? 'yes, by ' . ( Agent::wish( 'paused' ) ? 'the agent' : 'the operator' ) : 'no',
			'installation'  => Fleet::is_configured() ? Fleet::state()['installation'] : 'none, because there is no merchant_id',
			'toggles'       => implode( ', ', array_filter( Toggles::KEYS, array( Agent::class, 'toggle' ) ) ),
			'shared memory' => Breaker::has_apcu() ? 'APCu' : 'none: failures are remembered in a transient',
		);
		$known = ( new Breaker() )->failing();
		foreach ( (array) Settings::get( 'endpoints' ) as $text ) {
			$endpoint = Endpoint::parse( $text, Settings::is_constant( 'endpoints' ) );
			$refusal  = null === $endpoint ? 'the endpoint is invalid' : $endpoint->refusal();
			if ( '' !== $refusal ) {
				$rows[ $text ] = Destination::explain( $refusal, 'endpoints' );
			} elseif ( isset( $known[ $text ] ) ) {
				$rows[ $text ] = 'failing since ' . gmdate( 'c', $known[ $text ]['since'] ) . ': ' . $known[ $text ]['why'];
			} else {
				$rows[ $text ] = 'no known failure';
			}
		}
		$counts = Sender::counts();
		if ( null !== $counts ) {
			$rows['traces'] = sprintf( '%d sent, %d lost by this pool of PHP since it started', $counts['sent'], $counts['lost'] );
		}
		$items = array();
		foreach ( $rows as $name => $value ) {
			$items[] = array(
				'name'  => $name,
				'value' => $value,
			);
		}
		\WP_CLI\Utils\format_items( isset( $assoc['format'] ) ? $assoc['format'] : 'table', $items, array( 'name', 'value' ) );
	}

	/**
	 * Sends a trace of one span to each endpoint, and shows each result. Fails if no endpoint accepts it.
	 */
	public function test() {
		$result = Test_Trace::send();
		$taken  = 0;
		foreach ( $result['endpoints'] as $endpoint => $why ) {
			\WP_CLI::log( $endpoint . ': ' . ( '' === $why ? 'accepted' : $why ) );
			$taken += '' === $why ? 1 : 0;
		}
		if ( ! $taken ) {
			\WP_CLI::error( 'No endpoint accepted the trace.' );
		}
		\WP_CLI::success( 'Trace ' . $result['trace_id'] . ' was accepted.' );
	}

	/**
	 * Deletes remembered failures and the agent's last answer, and contacts the agent again.
	 */
	public function flush() {
		( new Breaker() )->reset();
		Agent::forget();
		$how = Heartbeat::beat();
		if ( is_wp_error( $how ) ) {
			\WP_CLI::warning( 'The agent did not answer: ' . $how->get_error_message() );
		}
		\WP_CLI::success( 'State deleted.' );
	}

	/**
	 * Shows every setting, and whether wp-config.php sets it.
	 *
	 * @param array $args  None.
	 * @param array $assoc Options.
	 */
	public function config( $args, $assoc ) {
		$items = array();
		foreach ( Settings::all() as $key => $value ) {
			$items[] = array(
				'setting' => $key,
				'value'   => is_scalar( $value ) ? ( is_bool( $value ) ? ( $value ? 'yes' : 'no' ) : (string) $value ) : implode( ' ', (array) $value ),
				'from'    => Settings::is_constant( $key ) ? 'wp-config.php' : 'settings',
			);
		}
		\WP_CLI\Utils\format_items( isset( $assoc['format'] ) ? $assoc['format'] : 'table', $items, array( 'setting', 'value', 'from' ) );
	}
}
