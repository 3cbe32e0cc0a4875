<?php
/**
 * W3C Trace Context.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Who called us, by the headers `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/).
 */
final class Trace_Context {

	/**
	 * 32 hex digits.
	 *
	 * @var string
	 */
	public $trace_id;

	/**
	 * The caller's span, 16 hex digits; '' if nobody called.
	 *
	 * @var string
	 */
	public $parent_id = '';

	/**
	 * Whether the caller samples; null if nobody called.
	 *
	 * @var bool|null
	 */
	public $sampled = null;

	/**
	 * What the caller wrote for other vendors, without OpenTelemetry's own entry.
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
	 * The context of a caller that is not trusted: our trace is not part of its trace, and links to it. Null if there is none.
	 *
	 * @var self|null
	 */
	public $link = null;

	/**
	 * Return the context of a request: of the caller's trace if the caller is trusted, else of a new trace with a link to
	 * the caller's. Anybody can send the headers, and whoever chooses the trace id or `rv` decides about sampling.
	 *
	 * @param string        $traceparent The header.
	 * @param string        $tracestate  The header.
	 * @param string        $address     Of the caller, as the web server has it.
	 * @param array         $trusted     Addresses and networks of callers that are trusted.
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
	 * Read the headers; begin a trace of our own if they are missing or broken.
	 *
	 * @param string $traceparent The header.
	 * @param string $tracestate  The header.
	 * @return self
	 */
	public static function from_headers( $traceparent, $tracestate = '' ) {
		$context = new self();
		if ( ! preg_match( '/^\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\s*$/D', $traceparent, $found )
			|| 'ff' === $found[1]
			|| ( '00' === $found[1] && isset( $found[5] ) ) // Later versions may add fields; this one may not.
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
	 * Write the header for a request that this one makes.
	 *
	 * @param string $span_id 16 hex digits.
	 * @param bool   $sampled Whether we sample.
	 * @return string
	 */
	public function traceparent( $span_id, $sampled ) {
		return '00-' . $this->trace_id . '-' . $span_id . ( $sampled ? '-01' : '-00' );
	}

	/**
	 * Write the header for a request that this one makes, and for our spans; '' for none.
	 *
	 * @param string $threshold Of our own sampling, as Sampler::threshold() gives it; null if there was none.
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
	 * Take OpenTelemetry's entry out of a tracestate. A state too long or with odd bytes is dropped as a whole.
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
