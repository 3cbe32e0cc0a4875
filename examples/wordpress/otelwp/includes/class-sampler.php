<?php
/**
 * Head sampling.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Consistent probability sampling by trace id, as OpenTelemetry defines it for `tracestate` (`ot=th:…;rv:…`).
 *
 * A trace is kept if its randomness, the last 56 bits of its id, is not below the threshold. All samplers with this
 * rule and the same threshold keep the same traces, and `th` contains the number of traces that each kept one
 * represents.
 */
final class Sampler {

	/**
	 * Return the threshold of a rate: 14 hex digits without the zeros at their end, '0' for every trace, null for none.
	 *
	 * @param float $rate 0 to 1.
	 * @return string|null
	 */
	public static function threshold( $rate ) {
		if ( $rate >= 1 ) {
			return '0';
		}
		$below = (int) round( ( 1 - $rate ) * 0x100000000000000 ); // 2 to the 56th.
		if ( $rate <= 0 || $below >= 0x100000000000000 ) {
			return null;
		}
		$digits = rtrim( sprintf( '%014x', $below ), '0' );
		return '' === $digits ? '0' : $digits;
	}

	/**
	 * Return whether a trace is kept by a threshold.
	 *
	 * @param string      $trace_id  32 hex digits.
	 * @param string|null $threshold From threshold().
	 * @param string      $random    The caller's `rv`, 14 hex digits, in place of the trace id's; '' if there is none.
	 * @return bool
	 */
	public static function keeps( $trace_id, $threshold, $random = '' ) {
		if ( null === $threshold ) {
			return false;
		}
		$randomness = 14 === strlen( $random ) && ctype_xdigit( $random ) ? strtolower( $random ) : substr( $trace_id, -14 );
		return strcmp( $randomness, str_pad( $threshold, 14, '0' ) ) >= 0; // Hex digits of equal length sort like numbers.
	}

	/**
	 * Use one trace of this second's budget, which all PHP processes share; return whether there was one left.
	 *
	 * Without APCu processes share nothing, and only the rate limits.
	 *
	 * @param float $traces_per_second From the agent; 0 is no limit.
	 * @return bool
	 */
	public static function within_budget( $traces_per_second ) {
		if ( $traces_per_second <= 0 || ! Breaker::has_apcu() ) {
			return true;
		}
		// Below one a second, the window is the interval between two traces.
		$window = max( 1, (int) round( 1 / $traces_per_second ) );
		$key    = Breaker::key( 'budget:' . intdiv( time(), $window ) );
		apcu_add( $key, 0, 2 * $window );
		return apcu_inc( $key ) <= max( 1, (int) floor( $traces_per_second * $window ) );
	}
}
