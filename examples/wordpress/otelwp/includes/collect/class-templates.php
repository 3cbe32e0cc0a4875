<?php
/**
 * Parts of templates.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Makes spans of parts of templates that take long.
 */
final class Templates {

	const SHORTEST = 1000000; // Nanoseconds. Parts that load faster are no spans.

	/**
	 * Where spans go.
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
	 * Watch; `begin` is called by who made this.
	 *
	 * @param Trace $trace Where spans go.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
		add_action( 'wp_after_load_template', array( $this, 'end' ), PHP_INT_MAX, 1 );
	}

	/**
	 * A template is about to be loaded.
	 */
	public function begin() {
		$this->parts[] = $this->trace->now();
	}

	/**
	 * A template was loaded.
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
