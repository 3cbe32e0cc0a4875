<?php
/**
 * Mail.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Makes spans of mails that are sent.
 */
final class Mail {

	/**
	 * Where spans go.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * The span of a mail that is being sent.
	 *
	 * @var int
	 */
	private $span = Trace::NONE;

	/**
	 * Watch; `begin` is called by who made this.
	 *
	 * @param Trace $trace Where spans go.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
		add_filter( 'pre_wp_mail', array( $this, 'taken' ), PHP_INT_MAX );
		add_action( 'wp_mail_succeeded', array( $this, 'end' ), PHP_INT_MIN, 0 );
		add_action( 'wp_mail_failed', array( $this, 'failed' ), PHP_INT_MIN );
	}

	/**
	 * A mail is about to be sent. To whom is nobody's business.
	 *
	 * @param array $mail The mail.
	 * @return array
	 */
	public function begin( $mail ) {
		$this->span = $this->trace->open( 'wp_mail' );
		return $mail;
	}

	/**
	 * A plugin may have taken the mail.
	 *
	 * @param bool|null $taken Null if none has.
	 * @return bool|null
	 */
	public function taken( $taken ) {
		if ( null !== $taken ) {
			$this->end();
		}
		return $taken;
	}

	/**
	 * The mail was handed over.
	 */
	public function end() {
		$this->trace->close( $this->span );
	}

	/**
	 * The mail was not handed over.
	 *
	 * @param \WP_Error $error Why.
	 */
	public function failed( $error ) {
		$this->trace->fail( $this->span, Redact::text( $error->get_error_message() ) );
		$this->trace->close( $this->span, array( 'error.type' => (string) $error->get_error_code() ) );
	}
}
