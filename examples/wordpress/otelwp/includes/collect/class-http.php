<?php
/**
 * Outgoing HTTP.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Settings;
use Otelwp\Site;
use Otelwp\Trace;
use Otelwp\Trace_Context;

defined( 'ABSPATH' ) || exit;

/**
 * Records spans of requests through WP_Http, and sends the trace context in `traceparent`.
 *
 * Requests that are not recorded send it too, with the flag "not sampled", so that services do not record partial
 * traces.
 */
final class Http {

	/**
	 * The trace for the spans; null if this request is not recorded.
	 *
	 * @var Trace|null
	 */
	private $trace;

	/**
	 * The trace context.
	 *
	 * @var Trace_Context
	 */
	private $context;

	/**
	 * The sampling threshold.
	 *
	 * @var string|null
	 */
	private $threshold;

	/**
	 * What each plugin used; null if this request is not recorded.
	 *
	 * @var Usage|null
	 */
	private $usage;

	/**
	 * Pending requests: address, span, start in nanoseconds since 1970, and attributes of the plugin or theme; the latest
	 * last.
	 *
	 * @var array[]
	 */
	private $pending = array();

	/**
	 * Register the hooks; `begin` is registered by the creator.
	 *
	 * @param Trace|null    $trace     The trace for the spans.
	 * @param Trace_Context $context   The trace context.
	 * @param string|null   $threshold The sampling threshold.
	 * @param Usage|null    $usage     What each plugin used.
	 */
	public function __construct( $trace, Trace_Context $context, $threshold, $usage = null ) {
		$this->usage     = $usage;
		$this->trace     = $trace;
		$this->context   = $context;
		$this->threshold = $threshold;
		if ( null !== $trace ) {
			add_filter( 'pre_http_request', array( $this, 'short_circuit' ), PHP_INT_MAX, 3 );
			add_action( 'http_api_debug', array( $this, 'end' ), 0, 5 );
		}
	}

	/**
	 * Start a span, and add the headers.
	 *
	 * @param array  $args Of the request.
	 * @param string $url  Its address.
	 * @return array
	 */
	public function begin( $args, $url ) {
		$url  = (string) $url;
		$span = Trace::NONE;
		if ( null !== $this->trace ) {
			$parts  = wp_parse_url( $url );
			$method = strtoupper( isset( $args['method'] ) && is_string( $args['method'] ) ? $args['method'] : 'GET' );
			$host   = isset( $parts['host'] ) ? strtolower( $parts['host'] ) : '';
			$scheme = isset( $parts['scheme'] ) ? strtolower( $parts['scheme'] ) : '';
			// The path and the query are not recorded, because in web hooks they are secrets.
			$attributes      = array(
				'http.request.method' => $method,
				'server.address'      => $host,
				'server.port'         => isset( $parts['port'] ) ? (int) $parts['port'] : ( 'https' === $scheme ? 443 : 80 ),
				'url.scheme'          => $scheme,
			) + ( empty( $args['blocking'] ) ? array( 'wordpress.http.blocking' => false ) : array() );
			$owner           = Owner::of_stack();
			$start           = $this->trace->now();
			$span            = $this->trace->add( trim( $method . ' ' . $host ), Trace::CLIENT, $start, 0, $attributes + $owner );
			$this->pending[] = array( $url, $span, $start, $owner );
		}
		return $this->propagates( $url ) ? $this->with_headers( $args, $span ) : $args;
	}

	/**
	 * End the span of a request that a plugin answered itself.
	 *
	 * @param false|array|\WP_Error $answer What it answered; false if it did not.
	 * @param array                 $args   Of the request.
	 * @param string                $url    Its address.
	 * @return false|array|\WP_Error
	 */
	public function short_circuit( $answer, $args, $url ) {
		if ( false !== $answer ) {
			$this->finish_span( $answer, (string) $url, array( 'wordpress.http.short_circuit' => true ) );
		}
		return $answer;
	}

	/**
	 * End the span of a request.
	 *
	 * @param array|\WP_Error $answer    The answer.
	 * @param string          $context   Always `response`.
	 * @param string          $transport The class that sent it.
	 * @param array           $args      Of the request.
	 * @param string          $url       Its address.
	 */
	public function end( $answer, $context, $transport, $args, $url ) {
		$this->finish_span( $answer, (string) $url, array() );
	}

	/**
	 * Return the span of a request that ends, and forget it.
	 *
	 * Requests wait for their answers, so the latest pending one ends, unless it ended without the hook. WordPress may
	 * have changed the address since the request began.
	 *
	 * @param string $url The address.
	 * @return int
	 */
	private function take( $url ) {
		$number = null;
		foreach ( array_reverse( $this->pending, true ) as $each => $pending ) {
			if ( null === $number || $pending[0] === $url ) {
				$number = $each;
			}
			if ( $pending[0] === $url ) {
				break;
			}
		}
		if ( null === $number ) {
			return Trace::NONE;
		}
		list( , $span, $start, $owner ) = $this->pending[ $number ];
		unset( $this->pending[ $number ] );
		if ( null !== $this->usage ) {
			$this->usage->add( $owner, 'http_requests', 1 );
			$this->usage->add( $owner, 'http_ms', ( $this->trace->now() - $start ) / 1e6 );
		}
		return $span;
	}

	/**
	 * End the span of a request.
	 *
	 * @param mixed  $answer     The answer.
	 * @param string $url        The address.
	 * @param array  $attributes Additional attributes.
	 */
	private function finish_span( $answer, $url, array $attributes ) {
		$span = $this->take( $url );
		if ( is_wp_error( $answer ) ) {
			$attributes['error.type'] = (string) $answer->get_error_code();
			$this->trace->fail( $span, \Otelwp\Redact::text( $answer->get_error_message() ) );
		} else {
			$status = (int) wp_remote_retrieve_response_code( $answer );
			if ( $status ) { // There is none if the request did not wait for the answer.
				$attributes['http.response.status_code'] = $status;
			}
			if ( $status >= 400 ) {
				$attributes['error.type'] = (string) $status;
				$this->trace->fail( $span );
			}
		}
		$this->trace->finish( $span, $attributes );
	}

	/**
	 * Return whether a request carries the trace context.
	 *
	 * @param string $url Its address.
	 * @return bool
	 */
	private function propagates( $url ) {
		$mode = Settings::get( 'propagate' );
		$to   = 'all' === $mode || ( 'site' === $mode && wp_parse_url( $url, PHP_URL_HOST ) === Site::host() );
		/**
		 * Filters whether an outgoing request carries `traceparent`.
		 *
		 * @param bool   $to  Whether it does.
		 * @param string $url Its address.
		 */
		return (bool) apply_filters( 'otelwp_propagate', $to, $url );
	}

	/**
	 * Add the headers, unless the caller has added its own.
	 *
	 * @param array $args Of the request.
	 * @param int   $span Of the request.
	 * @return array
	 */
	private function with_headers( $args, $span ) {
		$id = null === $this->trace ? bin2hex( random_bytes( 8 ) ) : $this->trace->id( Trace::NONE === $span ? $this->trace->current() : $span );
		// Not recorded: forward the incoming context without an own threshold.
		$add   = array( 'traceparent' => $this->context->traceparent( $id, null !== $this->trace ) );
		$state = $this->context->tracestate( null === $this->trace ? null : $this->threshold );
		if ( '' !== $state ) {
			$add['tracestate'] = $state;
		}
		$headers = isset( $args['headers'] ) ? $args['headers'] : array();
		if ( is_array( $headers ) ) {
			if ( ! isset( array_change_key_case( $headers )['traceparent'] ) ) {
				$args['headers'] = $headers + $add;
			}
		} elseif ( is_string( $headers ) && false === stripos( $headers, 'traceparent:' ) ) {
			foreach ( $add as $name => $value ) {
				$headers = rtrim( $headers, "\r\n" ) . ( '' === $headers ? '' : "\r\n" ) . $name . ': ' . $value;
			}
			$args['headers'] = $headers;
		}
		return $args;
	}
}
