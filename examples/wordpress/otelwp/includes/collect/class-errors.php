<?php
/**
 * Errors.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Reports fatal errors and uncaught exceptions, from PHP's last error, and error pages of wp_die().
 *
 * No error handler of PHP is replaced: what the site shows and logs stays unchanged.
 */
final class Errors {

	const FATAL = array(
		E_ERROR             => 'E_ERROR',
		E_PARSE             => 'E_PARSE',
		E_CORE_ERROR        => 'E_CORE_ERROR',
		E_COMPILE_ERROR     => 'E_COMPILE_ERROR',
		E_USER_ERROR        => 'E_USER_ERROR',
		E_RECOVERABLE_ERROR => 'E_RECOVERABLE_ERROR',
	);

	/**
	 * The error that ended the request. It is stored because the next warning, even a silenced one, replaces PHP's last
	 * error.
	 *
	 * @var array|null
	 */
	private static $fatal = null;

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * The span of the request.
	 *
	 * @var int
	 */
	private $root;

	/**
	 * What each plugin used.
	 *
	 * @var Usage
	 */
	private $usage;

	/**
	 * Store the trace; `wrap` is registered by the creator.
	 *
	 * @param Trace $trace The trace for the spans.
	 * @param int   $root  The span of the request.
	 * @param Usage $usage What each plugin used.
	 */
	public function __construct( Trace $trace, $root, Usage $usage ) {
		$this->trace = $trace;
		$this->root  = $root;
		$this->usage = $usage;
	}

	/**
	 * Return the error that ended the request as attributes of an event, or null.
	 *
	 * @return array|null
	 */
	public static function fatal() {
		$error = error_get_last();
		if ( null !== self::$fatal || null === $error || ! isset( self::FATAL[ $error['type'] ] ) ) {
			return self::$fatal;
		}
		list( $type, $message ) = self::uncaught( $error['message'] );

		self::$fatal = array(
			'exception.type'    => '' === $type ? self::FATAL[ $error['type'] ] : $type,
			'exception.message' => Redact::text( (string) strtok( $message, "\n" ) ),
			'exception.escaped' => true,
		) + Redact::code( $error['file'], $error['line'] );
		return self::$fatal;
	}

	/**
	 * Parse PHP's text about an exception, without its stack trace, which contains arguments.
	 *
	 * @param string $text `Uncaught Acme\Oops: message in /file.php:7`, then the stack trace; its causes are before it,
	 *                     and `Next` is before each following exception.
	 * @return string[] Class and message; '' and the text if it contains no exception.
	 */
	private static function uncaught( $text ) {
		if ( 0 !== strpos( $text, 'Uncaught ' ) ) {
			return array( '', $text );
		}
		// The name of an anonymous class ends with a zero byte and its location.
		$next = strrpos( $text, "\n\nNext " );
		$text = false === $next ? substr( $text, 9 ) : substr( $text, $next + 7 );
		if ( ! preg_match( '/^([\w\\\\]+(?:@anonymous)?)(?:\x00[^\n]*?\$[0-9a-f]+)?(?:: (.*?))?(?: in [^\n]+:\d+(?:\R|$)|\R|$)/s', $text, $found ) ) {
			return array( '', $text );
		}
		return array( $found[1], isset( $found[2] ) ? $found[2] : '' );
	}

	/**
	 * Record the arguments of wp_die() before its handler writes the page.
	 *
	 * @param callable $handler The handler of wp_die().
	 * @return callable
	 */
	public function wrap( $handler ) {
		return function ( $message, $title = '', $args = array() ) use ( $handler ) {
			$this->died( $message, $args );
			return call_user_func( $handler, $message, $title, $args );
		};
	}

	/**
	 * Record an error page of wp_die(), except the normal end of an AJAX answer.
	 *
	 * @param string|\WP_Error $message Its message.
	 * @param array            $args    Arguments of wp_die().
	 */
	private function died( $message, $args ) {
		$status = isset( $args['response'] ) ? (int) $args['response'] : ( wp_doing_ajax() ? 200 : 500 );
		if ( $status < 400 || null !== self::fatal() ) {
			return; // WordPress's own page about a fatal error contains less information than the error.
		}
		$type = 'wp_die';
		if ( is_wp_error( $message ) ) {
			$type    = (string) $message->get_error_code();
			$message = $message->get_error_message();
		}
		$message = Redact::text( wp_strip_all_tags( is_scalar( $message ) ? (string) $message : '' ) );
		$owner   = Owner::of_stack();
		$this->usage->add( $owner, 'errors', 1 );
		$this->trace->event(
			$this->root,
			'wordpress.wp_die',
			array(
				'error.type'                => $type,
				'exception.message'         => $message,
				'http.response.status_code' => $status,
			) + $owner
		);
		if ( $status >= 500 ) {
			$this->trace->fail( $this->root, $message );
		}
	}
}
