<?php
/**
 * The debug log.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Writes to PHP's error log what the plugin sends, while the toggle `enable_debug` is on.
 */
final class Debug_Log {

	/**
	 * Write a line about a trace, for the action `otelwp_sent`.
	 *
	 * @param string                $endpoint  Which accepted it; '' if none did.
	 * @param int                   $size      Bytes.
	 * @param int                   $sending   Nanoseconds that sending took.
	 * @param int                   $preparing Nanoseconds that preparing took.
	 * @param Trace                 $trace     The trace.
	 * @param array<string, string> $problems  Why other endpoints did not accept it.
	 */
	public static function sent( $endpoint, $size, $sending, $preparing, $trace, $problems ) {
		$line = sprintf( 'trace %s: %d spans, %d bytes, prepared in %d us, sent in %d us, %s', $trace->context->trace_id, count( $trace->spans ), $size, $preparing / 1000, $sending / 1000, '' === $endpoint ? 'accepted by no endpoint' : 'accepted by ' . Redact::address( $endpoint ) );
		foreach ( $problems as $failed => $why ) {
			$line .= '; ' . Redact::address( (string) $failed ) . ': ' . $why;
		}
		self::write( $line );
	}

	/**
	 * Write a line, if the toggle is on.
	 *
	 * @param string $line Without personal data.
	 */
	public static function write( $line ) {
		if ( Agent::toggle( Toggles::DEBUG ) ) {
			error_log( 'OTelWP: ' . preg_replace( '/[^ -~]/', '?', $line ) ); // phpcs:ignore WordPress.PHP.DevelopmentFunctions -- the operator asked for it.
		}
	}
}
