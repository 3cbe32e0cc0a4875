<?php
/**
 * Template parts.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Records spans of slow template parts.
 */
final class Templates {

	const SHORTEST = 1000000; // Nanoseconds; faster parts have no span.

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * Times at which templates began to load, the innermost last.
	 *
	 * @var int[]
	 */
	private $parts = array();

	/**
	 * Register the hooks; `begin` is registered by the creator.
	 *
	 * @param Trace $trace The trace for the spans.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
		add_action( 'wp_after_load_template', array( $this, 'end' ), PHP_INT_MAX, 1 );
	}

	/**
	 * Record the start time of a template.
	 */
	public function begin() {
		$this->parts[] = $this->trace->now();
	}

	/**
	 * Record a span if the template was slow.
	 *
	 * @param string $file Its path.
	 */
	public function end( $file ) {
		$now   = $this->trace->now();
		$start = array_pop( $this->parts );
		if ( null !== $start && $now - $start >= self::SHORTEST ) {
			$path = Redact::path( (string) $file );
			$this->trace->add( 'template ' . basename( $path ), Trace::INTERNAL, $start, $now, array( 'code.file.path' => $path ) );
		}
	}
}
