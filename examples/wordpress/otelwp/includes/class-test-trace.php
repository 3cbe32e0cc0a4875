<?php
/**
 * A test trace.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Sends a trace with one span at a user's request, and reports the result of each endpoint.
 */
final class Test_Trace {

	/**
	 * Send it to each endpoint, including those that failed before.
	 *
	 * @return array{trace_id: string, endpoints: array<string, string>} '' for an endpoint that accepted it, else the reason.
	 */
	public static function send() {
		$trace = new Trace( Trace_Context::from_headers( '' ), 1 );
		$trace->open( 'otelwp test', Trace::INTERNAL, array( 'otelwp.test' => true ) );
		$trace->complete();
		$body    = Otlp::encode( $trace, Site::resource(), 'ot=th:0' );
		$results = array();
		$breaker = new Breaker();
		foreach ( (array) Settings::get( 'endpoints' ) as $text ) {
			$endpoint = Endpoint::parse( $text, Settings::is_constant( 'endpoints' ) );
			if ( null === $endpoint ) {
				$results[ $text ] = __( 'the endpoint is invalid', 'otelwp' );
				continue;
			}
			$refusal = $endpoint->refusal();
			if ( '' !== $refusal ) {
				$results[ $text ] = Destination::explain( $refusal, 'endpoints' );
				continue;
			}
			$results[ $text ] = self::deliver( $endpoint, $body );
			if ( '' === $results[ $text ] ) {
				$breaker->note( $text, '' ); // It works again. A failure is only reported, so that a test costs pages nothing.
			}
		}
		return array(
			'trace_id'  => $trace->context->trace_id,
			'endpoints' => $results,
		);
	}

	/**
	 * Send it. Wait for the answer if there is one: it may be a refusal, which pages never see.
	 *
	 * @param Endpoint $endpoint Where to.
	 * @param string   $body     The OTLP.
	 * @return string '' if it was accepted.
	 */
	private static function deliver( Endpoint $endpoint, $body ) {
		if ( ! in_array( $endpoint->transport, array( 'unix', 'tcp' ), true ) ) {
			return $endpoint->deliver( $body );
		}
		$url    = 'unix' === $endpoint->transport ? 'unix://' . $endpoint->address : 'http://' . $endpoint->address;
		$answer = Agent_Client::request( 'POST', $url, $endpoint->path, $body, array( 'Content-Type' => 'application/x-protobuf' ), 'endpoints' );
		if ( is_wp_error( $answer ) ) {
			return $answer->get_error_message();
		}
		/* translators: %d: HTTP status code */
		return $answer['status'] < 300 ? '' : sprintf( __( 'it answers with status %d', 'otelwp' ), $answer['status'] );
	}
}
