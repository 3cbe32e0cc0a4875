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
 * A trace is kept if its randomness, the last 56 bits of its id, is not below the threshold. Everybody who samples the
 * same trace by this rule keeps the same ones, and `th` tells whoever counts them how many each stands for.
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
	 * Tell whether a trace is among those that a threshold keeps.
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
		return strcmp( $randomness, str_pad( $threshold, 14, '0' ) ) >= 0; // Hex digits of one length sort as numbers do.
	}

	/**
	 * Take one trace from the budget of this second, which all PHP processes share; tell whether it had one left.
	 *
	 * Without APCu the processes share nothing: then the rate alone limits.
	 *
	 * @param float $traces_per_second From the agent; 0 is no limit.
	 * @return bool
	 */
	public static function within_budget( $traces_per_second ) {
		if ( $traces_per_second <= 0 || ! Breaker::has_apcu() ) {
			return true;
		}
		// Below one a second, the window is as long as one trace takes.
		$window = max( 1, (int) round( 1 / $traces_per_second ) );
		$key    = Breaker::key( 'budget:' . intdiv( time(), $window ) );
		apcu_add( $key, 0, 2 * $window );
		return apcu_inc( $key ) <= max( 1, (int) floor( $traces_per_second * $window ) );
	}
}
