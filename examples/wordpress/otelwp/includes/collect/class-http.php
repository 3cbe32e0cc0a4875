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
 * Makes spans of requests through WP_Http, and hands the trace on in `traceparent`.
 *
 * A request that is not recorded hands on, too: that it is not, so that nobody behind us records half a trace.
 */
final class Http {

	/**
	 * Where spans go; null if this request is not recorded.
	 *
	 * @var Trace|null
	 */
	private $trace;

	/**
	 * The trace.
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
	 * Requests that are on their way: address, span. The last began last.
	 *
	 * @var array[]
	 */
	private $pending = array();

	/**
	 * Watch; `begin` is called by who made this.
	 *
	 * @param Trace|null    $trace     Where spans go.
	 * @param Trace_Context $context   The trace.
	 * @param string|null   $threshold Of sampling.
	 */
	public function __construct( $trace, Trace_Context $context, $threshold ) {
		$this->trace     = $trace;
		$this->context   = $context;
		$this->threshold = $threshold;
		if ( null !== $trace ) {
			add_filter( 'pre_http_request', array( $this, 'short_circuit' ), PHP_INT_MAX, 3 );
			add_action( 'http_api_debug', array( $this, 'end' ), 0, 5 );
		}
	}

	/**
	 * Begin a span, and add the headers.
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
			// The path and the query stay here: for web hooks they are the secret.
			$attributes      = array(
				'http.request.method' => $method,
				'server.address'      => $host,
				'server.port'         => isset( $parts['port'] ) ? (int) $parts['port'] : ( 'https' === $scheme ? 443 : 80 ),
				'url.scheme'          => $scheme,
			) + ( empty( $args['blocking'] ) ? array( 'wordpress.http.blocking' => false ) : array() );
			$span            = $this->trace->add( trim( $method . ' ' . $host ), Trace::CLIENT, $this->trace->now(), 0, $attributes );
			$this->pending[] = array( $url, $span );
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
	 * @param array|\WP_Error $answer    What came.
	 * @param string          $context   Always `response`.
	 * @param string          $transport The class that sent it.
	 * @param array           $args      Of the request.
	 * @param string          $url       Its address.
	 */
	public function end( $answer, $context, $transport, $args, $url ) {
		$this->finish_span( $answer, (string) $url, array() );
	}

	/**
	 * Find the span of an address, and end it.
	 *
	 * @param mixed  $answer     What came.
	 * @param string $url        The address.
	 * @param array  $attributes More of them.
	 */
	private function finish_span( $answer, $url, array $attributes ) {
		foreach ( array_reverse( $this->pending, true ) as $number => $pending ) {
			if ( $pending[0] !== $url ) {
				continue;
			}
			unset( $this->pending[ $number ] );
			if ( is_wp_error( $answer ) ) {
				$attributes['error.type'] = (string) $answer->get_error_code();
				$this->trace->fail( $pending[1], \Otelwp\Redact::text( $answer->get_error_message() ) );
			} else {
				$status = (int) wp_remote_retrieve_response_code( $answer );
				if ( $status ) { // None came if nobody waited for it.
					$attributes['http.response.status_code'] = $status;
				}
				if ( $status >= 400 ) {
					$attributes['error.type'] = (string) $status;
					$this->trace->fail( $pending[1] );
				}
			}
			$this->trace->finish( $pending[1], $attributes );
			return;
		}
	}

	/**
	 * Tell whether a request takes the trace along.
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
	 * Add the headers, unless the caller has its own.
	 *
	 * @param array $args Of the request.
	 * @param int   $span Of the request.
	 * @return array
	 */
	private function with_headers( $args, $span ) {
		$id = null === $this->trace ? bin2hex( random_bytes( 8 ) ) : $this->trace->id( Trace::NONE === $span ? $this->trace->current() : $span );
		// Not recorded: hand on what came, without a threshold of ours.
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
