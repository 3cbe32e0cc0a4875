<?php
/**
 * What went wrong.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Fatal errors and uncaught exceptions, from what PHP remembers at the end, and pages that wp_die() wrote.
 *
 * No handler of PHP's is replaced: what the site shows and logs stays as it was.
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
	 * What ended the request, once it was seen: the next warning, though silenced, makes PHP forget it.
	 *
	 * @var array|null
	 */
	private static $fatal = null;

	/**
	 * Where spans go.
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
	 * Prepare; `wrap` is called by who made this.
	 *
	 * @param Trace $trace Where spans go.
	 * @param int   $root  The span of the request.
	 */
	public function __construct( Trace $trace, $root ) {
		$this->trace = $trace;
		$this->root  = $root;
	}

	/**
	 * Return what ended the request as the attributes of an event, or null.
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
	 * Take PHP's text about an exception apart; its stack trace, which holds arguments, is left out.
	 *
	 * @param string $text `Uncaught Acme\Oops: message in /file.php:7`, then the stack trace; with its causes before it,
	 *                     each behind `Next`.
	 * @return string[] Class and message; '' and the text if it tells of no exception.
	 */
	private static function uncaught( $text ) {
		if ( 0 !== strpos( $text, 'Uncaught ' ) ) {
			return array( '', $text );
		}
		// The name of a class without one ends with a zero byte, and where it stands.
		$next = strrpos( $text, "\n\nNext " );
		$text = false === $next ? substr( $text, 9 ) : substr( $text, $next + 7 );
		if ( ! preg_match( '/^([\w\\\\]+(?:@anonymous)?)(?:\x00[^\n]*?\$[0-9a-f]+)?(?:: (.*?))?(?: in [^\n]+:\d+(?:\R|$)|\R|$)/s', $text, $found ) ) {
			return array( '', $text );
		}
		return array( $found[1], isset( $found[2] ) ? $found[2] : '' );
	}

	/**
	 * Look at what wp_die() is told before its handler writes the page.
	 *
	 * @param callable $handler Of wp_die().
	 * @return callable
	 */
	public function wrap( $handler ) {
		return function ( $message, $title = '', $args = array() ) use ( $handler ) {
			$this->died( $message, $args );
			return call_user_func( $handler, $message, $title, $args );
		};
	}

	/**
	 * Note a page of wp_die(), unless it is how a good AJAX answer ends.
	 *
	 * @param string|\WP_Error $message What it says.
	 * @param array            $args    Of wp_die().
	 */
	private function died( $message, $args ) {
		$status = isset( $args['response'] ) ? (int) $args['response'] : ( wp_doing_ajax() ? 200 : 500 );
		if ( $status < 400 || null !== self::fatal() ) {
			return; // WordPress's own page about a fatal error says less than the error.
		}
		$type = 'wp_die';
		if ( is_wp_error( $message ) ) {
			$type    = (string) $message->get_error_code();
			$message = $message->get_error_message();
		}
		$message = Redact::text( wp_strip_all_tags( is_scalar( $message ) ? (string) $message : '' ) );
		$this->trace->event(
			$this->root,
			'wordpress.wp_die',
			array(
				'error.type'                => $type,
				'exception.message'         => $message,
				'http.response.status_code' => $status,
			)
		);
		if ( $status >= 500 ) {
			$this->trace->fail( $this->root, $message );
		}
	}
}
