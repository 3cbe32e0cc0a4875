<?php
/**
 * W3C Trace Context.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * The trace context of the caller, from the headers `traceparent` and `tracestate`
 * (https://www.w3.org/TR/trace-context/).
 */
final class Trace_Context {

	/**
	 * 32 hex digits.
	 *
	 * @var string
	 */
	public $trace_id;

	/**
	 * The caller's span, 16 hex digits; '' without a caller.
	 *
	 * @var string
	 */
	public $parent_id = '';

	/**
	 * Whether the caller samples; null without a caller.
	 *
	 * @var bool|null
	 */
	public $sampled = null;

	/**
	 * The entries of other vendors in the caller's tracestate.
	 *
	 * @var string
	 */
	public $state = '';

	/**
	 * OpenTelemetry's entry of the caller's tracestate, `key:value;…`, as a map.
	 *
	 * @var array<string, string>
	 */
	public $ot = array();

	/**
	 * The context of an untrusted caller, to which this trace has a link. Null if there is none.
	 *
	 * @var self|null
	 */
	public $link = null;

	/**
	 * Return the context of a request: that of the caller's trace if the caller is trusted, else that of a new trace
	 * with a link to the caller's. Any client can send the headers, and a client that chooses the trace id or `rv`
	 * controls sampling.
	 *
	 * @param string        $traceparent The header.
	 * @param string        $tracestate  The header.
	 * @param string        $address     Address of the caller, from the web server.
	 * @param array         $trusted     Addresses and networks of trusted callers.
	 * @return self
	 */
	public static function of_request( $traceparent, $tracestate, $address, array $trusted ) {
		$caller = self::from_headers( $traceparent, $tracestate );
		if ( null === $caller->sampled || Address::is_within( $address, $trusted ) ) {
			return $caller;
		}
		$context       = self::from_headers( '' );
		$context->link = $caller;
		return $context;
	}

	/**
	 * Parse the headers; start a new trace if they are missing or invalid.
	 *
	 * @param string $traceparent The header.
	 * @param string $tracestate  The header.
	 * @return self
	 */
	public static function from_headers( $traceparent, $tracestate = '' ) {
		$context = new self();
		if ( ! preg_match( '/^\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\s*$/D', $traceparent, $found )
			|| 'ff' === $found[1]
			|| ( '00' === $found[1] && isset( $found[5] ) ) // Later versions may add fields, this one may not.
			|| '' === trim( $found[2], '0' )
			|| '' === trim( $found[3], '0' )
		) {
			$context->trace_id = bin2hex( random_bytes( 16 ) );
			return $context;
		}
		$context->trace_id  = $found[2];
		$context->parent_id = $found[3];
		$context->sampled   = 1 === ( hexdec( $found[4] ) & 1 );
		$context->read_state( $tracestate );
		return $context;
	}

	/**
	 * Return the header `traceparent` for an outgoing request.
	 *
	 * @param string $span_id 16 hex digits.
	 * @param bool   $sampled Whether this request is sampled.
	 * @return string
	 */
	public function traceparent( $span_id, $sampled ) {
		return '00-' . $this->trace_id . '-' . $span_id . ( $sampled ? '-01' : '-00' );
	}

	/**
	 * Return the header `tracestate` for an outgoing request and for the spans; '' for none.
	 *
	 * @param string $threshold Threshold of the own sampling, from Sampler::threshold(); null if there was none.
	 * @return string
	 */
	public function tracestate( $threshold ) {
		$ot = $this->ot;
		unset( $ot['th'] );
		if ( null !== $threshold ) {
			$ot = array( 'th' => $threshold ) + $ot;
		}
		$entries = array();
		foreach ( $ot as $key => $value ) {
			$entries[] = $key . ':' . $value;
		}
		$own = $entries ? 'ot=' . implode( ';', $entries ) : '';
		return $own . ( '' !== $own && '' !== $this->state ? ',' : '' ) . $this->state;
	}

	/**
	 * Parse a tracestate. One that is too long or has invalid bytes is ignored completely.
	 *
	 * @param string $header The header.
	 */
	private function read_state( $header ) {
		if ( '' === $header || strlen( $header ) > 512 || preg_match( '/[^\x20-\x7e\t]/', $header ) ) {
			return;
		}
		$others = array();
		foreach ( explode( ',', $header ) as $member ) {
			$member = trim( $member );
			if ( 0 !== strpos( $member, 'ot=' ) ) {
				if ( preg_match( '/^[a-z0-9][a-z0-9_\-*\/@]{0,255}=[^,=]{1,256}$/D', $member ) ) {
					$others[] = $member;
				}
				continue;
			}
			foreach ( explode( ';', substr( $member, 3 ) ) as $pair ) {
				if ( preg_match( '/^([a-z][a-z0-9]*):([A-Za-z0-9._-]+)$/D', $pair, $found ) ) {
					$this->ot[ $found[1] ] = $found[2];
				}
			}
		}
		$this->state = implode( ',', array_slice( $others, 0, 31 ) );
	}
}
