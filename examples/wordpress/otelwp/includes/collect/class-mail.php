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
 * Records spans of sent mails.
 */
final class Mail {

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * What each plugin used.
	 *
	 * @var Usage
	 */
	private $usage;

	/**
	 * The span of a mail that is being sent.
	 *
	 * @var int
	 */
	private $span = Trace::NONE;

	/**
	 * Register the hooks; `begin` is registered by the creator.
	 *
	 * @param Trace $trace The trace for the spans.
	 * @param Usage $usage What each plugin used.
	 */
	public function __construct( Trace $trace, Usage $usage ) {
		$this->trace = $trace;
		$this->usage = $usage;
		add_filter( 'pre_wp_mail', array( $this, 'taken' ), PHP_INT_MAX );
		add_action( 'wp_mail_succeeded', array( $this, 'end' ), PHP_INT_MIN, 0 );
		add_action( 'wp_mail_failed', array( $this, 'failed' ), PHP_INT_MIN );
	}

	/**
	 * Start the span of a mail. The recipients are not recorded, because they are personal data.
	 *
	 * @param array $mail The mail.
	 * @return array
	 */
	public function begin( $mail ) {
		$owner      = Owner::of_stack();
		$this->span = $this->trace->open( 'wp_mail', Trace::INTERNAL, $owner );
		$this->usage->add( $owner, 'mails', 1 );
		return $mail;
	}

	/**
	 * End the span if a plugin sends the mail itself.
	 *
	 * @param bool|null $taken Null if no plugin does.
	 * @return bool|null
	 */
	public function taken( $taken ) {
		if ( null !== $taken ) {
			$this->end();
		}
		return $taken;
	}

	/**
	 * End the span of a sent mail.
	 */
	public function end() {
		$this->trace->close( $this->span );
	}

	/**
	 * End the span of a mail that could not be sent.
	 *
	 * @param \WP_Error $error The reason.
	 */
	public function failed( $error ) {
		$this->trace->fail( $this->span, Redact::text( $error->get_error_message() ) );
		$this->trace->close( $this->span, array( 'error.type' => (string) $error->get_error_code() ) );
	}
}
